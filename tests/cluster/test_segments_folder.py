import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster import segments_folder as module
from cluster.lock import holding
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


@pytest.mark.parametrize("removed", [True, False])
def test_a_run_is_resumed_while_another_takes_its_folder_for_an_orphan_s(
    removed: bool, memory: Path, tmp_path: Path
) -> None:
    """The other has the lock already: it is waited for, and what it leaves is taken up."""
    left, place = memory / "contrail-run-killed", tmp_path / "run" / "replay" / "segments"
    left.mkdir()
    place.parent.mkdir(parents=True)
    place.symlink_to(left)
    locked = threading.Event()

    def other() -> None:
        with holding(left) as alone:
            assert alone
            locked.set()
            threading.Event().wait(0.5)  # it sends rows to the log
            if removed:
                shutil.rmtree(left)

    thread = threading.Thread(target=other)
    thread.start()
    assert locked.wait(10)
    with segments_folder(tmp_path / "run", 1000, go_on=True) as folder:
        assert (folder == left) is not removed and place.resolve() == folder
        remove_orphans()
        assert folder.is_dir()
    thread.join()
    assert not list(memory.iterdir())
