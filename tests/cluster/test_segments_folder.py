import subprocess
import sys
from pathlib import Path

import pytest

from cluster import segments_folder as module
from cluster.segments_folder import remove_orphans, segments_folder

HELD = """
import sys, time
from pathlib import Path
from cluster import segments_folder as module
module.SHARED_MEMORY = Path(sys.argv[1])
with module.segments_folder(Path(sys.argv[2]), 1000):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for shared memory."""
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path / "memory")
    return tmp_path / "memory"


def test_segments_lie_in_shared_memory_and_are_found_from_the_run(memory: Path, tmp_path: Path) -> None:
    with segments_folder(tmp_path / "run", 1000) as folder:
        (folder / "a.arrow").write_text("")
        assert folder.parent == memory and folder.name.startswith("contrail-run-")
        assert (tmp_path / "run" / "replay" / "segments" / "a.arrow").is_file()
    assert not list(memory.iterdir()) and not list((tmp_path / "run" / "replay").iterdir())


def test_where_shared_memory_is_small_they_lie_in_the_run(memory: Path, tmp_path: Path) -> None:
    with segments_folder(tmp_path / "run", 10**18) as folder:
        (folder / "a.arrow").write_text("")
        assert folder == tmp_path / "run" / "replay" / "segments" and not folder.is_symlink()
    assert not folder.exists()


@pytest.mark.parametrize("wanted", [1000, 10**18])
@pytest.mark.parametrize("left", ["link", "folder"])
def test_what_a_killed_run_left_is_no_hindrance(left: str, wanted: int, memory: Path, tmp_path: Path) -> None:
    place = tmp_path / "run" / "replay" / "segments"
    place.parent.mkdir(parents=True)
    if left == "link":
        place.symlink_to(memory / "gone")
    else:
        place.mkdir()
        (place / "old.arrow").write_text("")
    with segments_folder(tmp_path / "run", wanted) as folder:
        assert [path.name for path in folder.iterdir()] == ["owner.json"]


def test_a_dead_owner_s_folder_is_removed_and_a_living_one_s_is_not(memory: Path, tmp_path: Path) -> None:
    (memory / "others").mkdir()
    command = [sys.executable, "-c", HELD, str(memory), str(tmp_path / "dead")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        (orphan,) = memory.glob("contrail-dead-*")
        (orphan / "a.arrow").write_text("")
        with segments_folder(tmp_path / "run", 1000) as mine:
            remove_orphans()
            assert orphan.is_dir() and mine.is_dir()
            owner.kill()
            owner.wait()
            remove_orphans()
            assert mine.is_dir() and not orphan.exists()
    assert [path.name for path in memory.iterdir()] == ["others"]
