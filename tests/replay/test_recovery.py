"""A shard that dies at any moment and comes back from its journal is the shard that it would have been."""

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import Shard, StoreFull, Table
from replay.journal import Journal, JournalError
from replay.recovery import Recorder, recover
from replay.table import KINDS
from tests.replay.mortal import World, statistics
from tests.replay.store import Messages, examples

NUMBERS = st.integers(0, 2)
COUNTS = st.tuples(st.integers(0, 9), st.integers(0, 9))
LIMITS = st.sampled_from(
    [{"samples_per_insert": 2.0}, {"samples_per_insert": None}, {"min_items": 8}, {"tolerance": 20.0}]
)
ACTIONS = st.one_of(
    st.tuples(st.just("write"), NUMBERS, COUNTS, st.booleans()),
    st.tuples(st.just("write"), NUMBERS, COUNTS, st.booleans()),
    st.just(("draw",)),
    st.just(("draw",)),
    st.tuples(st.just("restart"), NUMBERS),
    st.tuples(st.just("retire"), NUMBERS),
    st.tuples(st.just("fence"), NUMBERS),
    st.tuples(st.just("resend"), NUMBERS),
    st.tuples(st.just("limit"), st.sampled_from(["first", "second"]), LIMITS),
    st.tuples(
        st.just("prioritise"), st.lists(st.tuples(st.integers(0, 99), st.sampled_from([0.0, 0.5, 4.0])), max_size=4)
    ),
    st.tuples(st.just("archive"), st.integers(0, 3)),
    st.sampled_from([("die",), ("die_in_next_call",), ("snapshot",)]),
)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, dict]:
    found = {}
    for name in ("first", "second")[: draw(st.integers(1, 2))]:
        reads = draw(st.integers(0, 2))
        found[name] = {
            "batch": 4,
            "select": draw(st.sampled_from(KINDS)),
            "reads": reads,
            "remove": draw(st.sampled_from([*KINDS, None])),
            "capacity": draw(st.integers(8, 30)),
            "window": draw(st.integers(1, 4)),
            "stride": draw(st.none() | st.integers(1, 6)),
            "lead": draw(st.integers(0, 3)),
            "arity": draw(st.integers(1, 2)),
            "within": draw(st.sampled_from([(), (), ("episode",), ("task", "episode")])),
            "max_lag": draw(st.none() | st.integers(0, 1)) if reads == 1 else None,
            "exponent": draw(st.sampled_from([0.6, 1.0])),
        }
    return found


@examples(200)
@given(
    tables=tables(),
    archive=st.booleans(),
    max_bytes=st.sampled_from([None, None, 800, 2500]),
    actions=st.lists(ACTIONS, max_size=45),
)
def test_a_shard_that_dies_again_and_again_is_the_one_that_lives_on(tables, archive: bool, max_bytes, actions):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        lives, dies = (
            World(Path(folder) / name, tables, archive=archive, max_bytes=max_bytes) for name in ("lives", "dies")
        )
        for name, *arguments in actions:
            if name in ("die", "die_in_next_call"):
                getattr(dies, name)()
            elif name == "snapshot":
                dies.recorder.snapshot()
            elif name == "archive":
                for world, pace in ((lives, arguments[0]), (dies, 1)):
                    if world.archive:
                        world.archive.work(pace)
            else:
                for world in (lives, dies):
                    getattr(world, name)(*arguments)
            assert dies.heard == lives.heard
        dies.die()
        for number in range(3):
            for world in (lives, dies):
                world.write(number, (7, 5), True)
                world.draw()
        assert dies.heard == lives.heard
        ends = [world.end() for world in (lives, dies)]
        assert ends[0] == ends[1]
        assert ends[0]["left"] == []


@examples(60)
@given(tables=tables(), actions=st.lists(ACTIONS, min_size=10, max_size=40), until=st.integers(0, 12))
def test_a_shard_goes_back_to_when_so_many_draws_had_been_formed(tables, actions: list, until: int):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        world, snapshots = World(Path(folder), tables, archive=False, max_bytes=None), [0]
        for name, *arguments in actions:
            if name == "snapshot":
                snapshots.append(world.step)
                world.recorder.snapshot()
            elif name not in ("archive", "die", "die_in_next_call"):
                getattr(world, name)(*arguments)
        before = sorted(path.name for path in world.live.iterdir())
        shard = recover(world.folder / "journal", "shard-0", until=until)
        assert shard is not None
        assert shard.drawn == min(until, world.step)
        if 0 < until <= world.step and until not in snapshots:
            assert statistics(shard) == dict(world.told)[until - 1]
        assert sorted(path.name for path in world.live.iterdir()) == before  # until it is thawed
        world.recorder.forget(until)
        again = recover(world.folder / "journal", "shard-0", until=until)
        assert again is not None
        assert (again.statistics(), again.drawn) == (shard.statistics(), shard.drawn)


def recorded(folder: Path, told: Callable[[tuple], None] | None = None) -> tuple[Shard, Recorder, Messages]:
    shard = Shard({"any": Table(batch=2, select="uniform")}, seed=0)
    recorder = Recorder(shard, Journal(folder, "shard-0"))
    return shard, recorder, Messages("a", [0, 1], shard.commit)


def test_a_change_that_cannot_be_written_down_is_not_made(tmp_path: Path):
    shard, _, writer = recorded(tmp_path)
    writer.block(4, 4)
    items = shard.draw(0).items["any"]
    before = shard.statistics()

    def refuse(told: tuple) -> None:
        raise OSError(28, "No space left on device")

    append, shard.record = shard.record, refuse
    for call in (
        lambda: writer.block(1, 1),
        lambda: shard.draw(1),
        lambda: shard.prioritise("any", items.ids, items.probabilities),
        lambda: shard.limit("any", {"min_items": 5}),
        lambda: shard.retire("a"),
        lambda: shard.fence([0, 1], "b"),
    ):
        with pytest.raises(OSError, match="No space left"):
            call()
    assert shard.statistics() == before
    assert shard.tables["any"].min_items is None
    shard.record = append
    shard.commit(writer.sent[-1])
    found = recover(tmp_path, "shard-0")
    assert found is not None
    assert found.statistics() == shard.statistics()
    assert found.draw(0).items["any"].ids.tolist() == items.ids.tolist()


def test_rows_that_came_though_there_was_too_little_room_are_known_again(tmp_path: Path):
    shard = Shard({"any": Table(batch=20, select="uniform")}, seed=0, max_bytes=150)
    Recorder(shard, Journal(tmp_path, "shard-0"))
    writer = Messages("a", [0], shard.commit)
    with pytest.raises(StoreFull, match="200 bytes of 150 allowed, and a draw still waits"):
        writer.block(9)
    found = recover(tmp_path, "shard-0")
    assert found is not None
    assert found.statistics() == shard.statistics()
    assert found.statistics()["any/windows"] == 9


def test_a_long_journal_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("replay.recovery.LARGE", 20_000)
    shard, recorder, writer = recorded(tmp_path)
    for step in range(300):
        writer.block(3, 3)
        shard.draw(step)
        recorder.tidy()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 3
    found = recover(tmp_path, "shard-0")
    assert found is not None
    assert found.statistics() == shard.statistics()
    recorder.forget(290)
    assert len(list(tmp_path.iterdir())) < len(sizes)
    assert (recover(tmp_path, "shard-0", until=290) or shard).drawn == 290
    assert recover(tmp_path, "shard-0", until=5) is None


def test_a_snapshot_of_another_version_is_named(tmp_path: Path):
    Journal(tmp_path, "shard-0").begin(0, pickle.dumps(Shard)[:-5])
    with pytest.raises(JournalError, match=r"shard-0: its snapshot cannot be read .*another version"):
        recover(tmp_path, "shard-0")
    assert recover(tmp_path, "shard-1") is None
