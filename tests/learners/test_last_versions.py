"""What a learner leaves behind, and that another one goes on from it as if nothing had happened."""

import errno
import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from learners.checkpoint import CheckpointError
from learners.group import Group
from learners.last_versions import LastVersions
from learners.learner import Learner
from tests.learners.killed import KINDS, begun, digest, taken_up
from tests.learners.pair import Pair

HOUSE = Path(__file__).resolve().parents[2]


def tensors_of(version: int, *, width: int = 5) -> dict[str, Tensor]:
    return {
        "flag": torch.tensor(version % 2 == 0),
        "half": torch.full((width,), version).bfloat16(),
        "lying": torch.full((2, 3, 4, 4), float(version)).contiguous(memory_format=torch.channels_last),
        "none": torch.zeros(0, 3),
        "number": torch.tensor(version),
    }


def write(keep: LastVersions, version: int, *, width: int = 5, **values: object) -> None:
    keep.write(tensors_of(version, width=width), {"version": version, **values})


def check(keep: LastVersions, version: int, *, width: int = 5) -> None:
    tensors, values = keep.read(version)
    wanted = tensors_of(version, width=width)
    assert values["version"] == version and tensors.keys() == wanted.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, wanted[name]) and tensor.dtype == wanted[name].dtype


def kept(learner: Learner) -> LastVersions:
    assert learner.keep is not None
    return learner.keep


def test_the_last_two_versions_are_there(tmp_path: Path) -> None:
    keep = LastVersions(tmp_path, rank=3)
    assert keep.versions() == []
    for version in range(5):
        write(keep, version)
        assert LastVersions(tmp_path, rank=3).versions() == [version - 1, version][version == 0 :]
        check(LastVersions(tmp_path, rank=3), version)
    check(keep, 3)
    assert LastVersions(tmp_path, rank=0).versions() == [], "another rank's"


def test_another_layout_or_longer_values_find_room(tmp_path: Path) -> None:
    keep = LastVersions(tmp_path, rank=0)
    for version, (width, text) in enumerate([(5, ""), (6, ""), (6, "x" * 20_000), (7, "x"), (7, "y" * 20_000)]):
        write(keep, version, width=width, text=text)
        check(keep, version, width=width)
        assert keep.read(version)[1]["text"] == text
    check(keep, 3, width=7)


def test_in_place_means_no_new_file(tmp_path: Path) -> None:
    keep = LastVersions(tmp_path, rank=0)
    write(keep, 0)
    write(keep, 1)
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    write(keep, 2)
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before and len(before) == 2


def test_a_death_in_the_middle_of_writing_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = LastVersions(tmp_path, rank=0)
    for version in range(3):
        write(keep, version)

    def half(views: list[Tensor], tensors: list[Tensor]) -> None:
        views[1].copy_(tensors[1])
        raise KeyboardInterrupt

    monkeypatch.setattr("learners.last_versions.torch._foreach_copy_", half)
    with pytest.raises(KeyboardInterrupt):
        write(keep, 3)
    left = LastVersions(tmp_path, rank=0)
    assert left.versions() == [2]
    check(left, 2)
    with pytest.raises(CheckpointError, match=r"odd\.safetensors holds nothing whole, wanted version 3"):
        left.read(3)


def test_what_is_taken_up_is_not_written_again_and_newer_versions_are_gone(tmp_path: Path) -> None:
    first, second = LastVersions(tmp_path, rank=0), LastVersions(tmp_path, rank=0)
    for version in range(4):
        write(first, version)
    second.take_up(2)
    assert second.versions() == [2], "the step from 2 to 3 is made again, perhaps with another result"
    second.write({}, {"version": 2})
    check(second, 2)
    write(second, 3)
    write(second, 4)
    assert second.versions() == [3, 4]


def test_who_takes_nothing_up_begins_anew(tmp_path: Path) -> None:
    for last in (3, 0):
        keep = LastVersions(tmp_path, rank=0)
        for version in range(last + 1):
            write(keep, version)
    assert keep.versions() == [0]


@pytest.mark.parametrize("damage", ["cut", "foreign", "safetensors of others"])
def test_a_file_that_is_not_ours_is_named(tmp_path: Path, damage: str) -> None:
    keep, path = LastVersions(tmp_path, rank=0), tmp_path / "learner-0.even.safetensors"
    write(keep, 0)
    whole = path.read_bytes()
    path.unlink()
    others = b"\x02" + bytes(7) + b"{}"
    path.write_bytes({"cut": whole[:-1], "foreign": b"nonsense" * 9, "safetensors of others": others}[damage])
    with pytest.raises(CheckpointError, match=r"learner-0\.even\.safetensors is damaged, or no learner wrote it"):
        keep.versions()
    with pytest.raises(CheckpointError, match="resume from a checkpoint"):
        keep.take_up(0)
    again = LastVersions(tmp_path, rank=0)
    write(again, 0)
    check(again, 0)


def test_without_room_a_learner_goes_on_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The first step's optimiser state is what finds no room."""
    learner = begun("ppo", LastVersions(tmp_path, rank=0))
    size, before = (tmp_path / "learner-0.even.safetensors").stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        told = [learner.step()["checks/state_not_kept"] for _ in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told == [1.0] * 3 and learner.version == 3 and kept(learner).versions() == []
    assert list(tmp_path.iterdir()) == [], "old versions would go on from draws that are forgotten"
    (record,) = caplog.records
    assert f"no room for this learner's state in {tmp_path}" in record.getMessage()


def test_a_folder_that_is_not_there_is_no_lack_of_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(FileNotFoundError) as caught:
        write(LastVersions(tmp_path / "gone", rank=0), 0)
    assert caught.value.errno == errno.ENOENT and not caplog.records


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dies_at", [0, 2], ids="after {}".format)
def test_a_replacement_makes_the_same_weights(kind: str, dies_at: int, tmp_path: Path) -> None:
    whole = begun(kind, LastVersions(tmp_path, rank=1))
    for _ in range(3):
        whole.step()
    dead = begun(kind, LastVersions(tmp_path, rank=0))
    for _ in range(dies_at):
        dead.step()
    again = taken_up(kind, LastVersions(tmp_path, rank=0), dead.version)
    assert again.version == dies_at and again.read.published == [dies_at]  # type: ignore[attr-defined]
    for _ in range(3 - dies_at):
        metrics = again.step()
    assert metrics["checks/state_not_kept"] == 0.0
    assert digest(again.state()[0]) == digest(whole.state()[0]) and again.steps == whole.steps
    assert [digest(kept(again).read(v)[0]) for v in (2, 3)] == [digest(kept(whole).read(v)[0]) for v in (2, 3)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_lived_goes_back_with_the_others(kind: str, tmp_path: Path) -> None:
    """It was a step ahead; the version before is there, too."""
    learner = begun(kind, LastVersions(tmp_path, rank=0))
    for _ in range(3):
        learner.step()
    wanted = digest(learner.state()[0])
    learner.restore(*kept(learner).take_up(2))
    learner.announce()
    learner.step()
    assert digest(learner.state()[0]) == wanted and kept(learner).versions() == [2, 3]


def as_ranks(group: Group, folder: Path) -> tuple[int, int]:
    """Digest after three steps, and after two of which the second is made again."""
    learner = begun("curl", LastVersions(folder, rank=group.rank))
    straight = grouped(learner, group)
    for _ in range(3):
        straight.step()
    wanted = digest(straight.state()[0])
    again = grouped(begun("curl", None), group)
    again.keep = straight.keep
    again.restore(*kept(again).take_up(2))
    again.step()
    return wanted, digest(again.state()[0])


def grouped(learner: Learner, group: Group) -> Learner:
    """A learner of the same parts as one of several."""
    updates = [engine.update for engine in learner.engines]
    options = {"tables": learner.tables, "read": learner.read, "publish": learner.publish, "total_steps": 1000}
    return Learner(learner.model, updates, **options, group=group, keep=learner.keep)


def test_two_learners_go_on_together(pair: Pair, tmp_path: Path) -> None:
    for wanted, found in pair(as_ranks, tmp_path):
        assert wanted == found


def test_a_version_is_there_before_anybody_hears_of_it(tmp_path: Path) -> None:
    learner = KINDS["ppo"](LastVersions(tmp_path, rank=0))
    heard: list[int] = []

    class Publisher:
        def publish(self, version: int, weights: dict[str, np.ndarray]) -> None:
            assert kept(learner).versions()[-1] == version
            heard.append(version)

    learner.publish = Publisher()
    learner.announce()
    learner.step()
    assert heard == [0, 1]


class Found:
    """An engine that does nothing and finds what windows are worth."""

    def __init__(self) -> None:
        self.priorities = {"fresh": (np.array([2**40, 7]), np.array([0.1, 1 / 3]))}

    def step(self, batches: object, *, progress: float) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        pass


def test_priorities_that_may_have_died_are_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, list[int], list[float]]] = []
    monkeypatch.setattr(
        "tests.learners.reading.RandomRows.prioritise", lambda _, *found: sent.append((found[0], *map(list, found[1:])))
    )
    learner, again = (KINDS["ppo"](keep) for keep in (LastVersions(tmp_path, rank=0), None))
    for each in (learner, again):
        each.engines.append(Found())
    learner.step()
    assert sent == [("fresh", [2**40, 7], [0.1, 1 / 3])]
    again.restore(*LastVersions(tmp_path, rank=0).take_up(1))
    assert sent == [sent[0]] * 2


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[int, int]]]:
    """What was there after each of ten deaths by kill -9, {version: digest}, of one that only writes and of a learner.

    Both in one program, and forked from it: to import torch for each would take a minute.
    """
    command = [sys.executable, "-m", "tests.learners.killed", str(tmp_path_factory.mktemp("killed")), "bare", "ppo"]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        kind: [{int(v): d for v, d in each.items()} for name, each in lines if name == kind] for kind in command[-2:]
    }


def test_killed_while_writing_a_version_is_whole_or_not_there(left: dict[str, list[dict[int, int]]]) -> None:
    for versions in left["bare"]:
        for version, found in versions.items():
            width = 1_000_000 + 1000 * (version // 10 % 2)
            assert found == digest({name: torch.full((width,), version) for name in ("a", "b")})
    newest = [max(versions) for versions in left["bare"]]
    assert newest == sorted(set(newest)) and len(newest) == 10
    assert any(len(versions) == 1 for versions in left["bare"]), "none died while it wrote: nothing was shown"


def test_a_learner_that_is_killed_again_and_again_learns_the_same(
    left: dict[str, list[dict[int, int]]], tmp_path: Path
) -> None:
    whole = begun("ppo", LastVersions(tmp_path, rank=0))
    wanted = {0: digest(whole.state()[0])}
    while whole.version < max(left["ppo"][-1]):
        whole.step()
        wanted[whole.version] = digest(whole.state()[0])
    assert whole.version >= 19
    for versions in left["ppo"]:
        assert versions == {version: wanted[version] for version in versions}
