"""A shard opened with all its files: after its death, and in the next start of a run."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from replay import Sampler, Shard, Table, TableError, draw_log
from replay.archive import read_archived, salvage
from replay.draw_log import read_draws
from replay.opening import Places, next_start, open_shard, prepare_restart
from replay.recovery import Recorder
from tests.replay.store import SCHEMA, Hand, assert_rows

TABLES = {
    "any": Table(batch=4, select="prioritised", window=2, lead=1, within=("episode",)),
    "fresh": Table(batch=4, window=4, capacity=400),
}


class Start:
    """One start of a run: its shards with their files, two writers, and a learner."""

    def __init__(self, places: Places, shards: int) -> None:
        self.places, self.count = places, shards
        self.opened = [self.open(index) for index in range(shards)]
        streams = [[10 * places.start + 2 * number, 10 * places.start + 2 * number + 1] for number in range(2)]
        self.hands = [self.hand(number, streams[number]) for number in range(2)]
        self.sampler = Sampler(SCHEMA, TABLES, self.shards)
        self.step, self.urgent = self.shards[0].drawn, list[tuple[int, int]]()

    def open(self, index: int) -> tuple[Shard, Recorder]:
        return open_shard(TABLES, self.places, shards=self.count, index=index, seed=5)

    def hand(self, number: int, streams: list[int]) -> Hand:
        def commit(commit) -> None:
            self.shards[number % self.count].commit(commit)

        name, facts = f"s{self.places.start}w{number}", {"rows_per_segment": 5, "watch": ("episode",)}
        return Hand(name, streams, self.places.live, commit, **facts)

    @property
    def shards(self) -> list[Shard]:
        return [shard for shard, _ in self.opened]

    def learn(self, steps: int) -> list[dict]:
        """Set the last draw's priorities, write, draw, and look at every row; what was drawn."""
        drawn = []
        for _ in range(steps):
            for item, start in self.urgent:
                self.sampler.prioritise("any", np.array([item]), np.array([start % 5 + 0.5]))
            for hand in self.hands:
                hand.block(9)
            batches = self.sampler.read(self.step)
            for name, table in TABLES.items():
                assert_rows(batches[name], table.lead, table.within)
                drawn.append({key: batches[name][key].tolist() for key in ("stream", "start", "item", "probability")})
            self.urgent = list(zip(drawn[-2]["item"], drawn[-2]["start"], strict=True))
            self.step += 1
            for _, recorder in self.opened:
                recorder.tidy()
        return drawn

    def kill(self) -> None:
        """Lose what is in memory; a thread cannot be killed, so the archive may get further than it would have."""
        for shard, recorder in self.opened:
            if shard.segments.archive is not None:
                shard.segments.archive.close()
            recorder._journal.close()
            if recorder._draws is not None:
                recorder._draws._file.close()
        self.sampler.close()

    def revive(self) -> None:
        """The shards die and are opened again; writers and learner live on."""
        self.kill()
        self.opened = [self.open(index) for index in range(self.count)]
        self.sampler = Sampler(SCHEMA, TABLES, self.shards)

    def close(self) -> None:
        for hand in self.hands:
            hand.writer.close()
        for shard, recorder in self.opened:
            shard.close()
            recorder.close()
        self.sampler.close()


def places_of(folder: Path, **changes) -> Places:
    (folder / "live").mkdir(exist_ok=True)
    return Places(folder / "live", folder / "kept", **changes)


def held(shards: list[Shard]) -> dict:
    """Priority of every window that can be read again, by stream and first row."""
    found = {}
    for shard in shards:
        _, columns, priorities = shard.holdings["any"].live()
        streams = shard.sources.facts[columns[:, 0], 0]
        found |= dict(zip(zip(streams.tolist(), columns[:, 1].tolist(), strict=True), priorities.tolist(), strict=True))
    return found


@pytest.mark.parametrize("rows", ["none", "lz4"])
def test_a_shard_that_dies_is_opened_as_it_was(tmp_path: Path, rows: str):
    runs = [
        Start(places_of(tmp_path / name, rows=rows), 1)
        for name in ("lives", "dies")
        if (tmp_path / name).mkdir() is None
    ]
    drawn = []
    for run in runs:
        seen = run.learn(4)
        if run is runs[1]:
            before = run.shards[0].statistics()
            run.revive()
            after = run.shards[0].statistics()
            same = {name for name in before if name != "segments_archiving"}
            assert {name: after[name] for name in same} == {name: before[name] for name in same}
        drawn.append(seen + run.learn(4))
        run.close()
    assert drawn[0] == drawn[1]
    assert [list((tmp_path / name / "live").iterdir()) for name in ("lives", "dies")] == [[], []]
    logs = [tmp_path / name / "kept" / "log" for name in ("lives", "dies")]
    if rows == "none":
        assert not any(log.exists() for log in logs)
        return
    kept = [sorted(path.name for path in log.glob("*.arrow")) for log in logs]
    assert kept[0] == kept[1]
    assert sum(read_archived(path, ["mask"]).column(0).to_numpy().sum() for path in logs[1].glob("*.arrow")) == 4 * 72
    items = [
        sorted(
            item
            for path in log.glob("draws-*")
            for item in zip(*map(read_draws(path).to_pydict().get, KEYS), strict=True)
        )
        for log in logs
    ]
    assert items[0] == items[1]
    assert len(items[0]) == 8 * 8


KEYS = ("step", "table", "place", "item", "writer", "row", "probability")


@pytest.mark.parametrize("live", ["kept", "lost", "saved"])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path, live: str, shards: int):
    """`live`: what became of the live segments: still there, lost with the machine, or saved into the log."""
    assert next_start(tmp_path / "kept") == 0
    first = Start(places_of(tmp_path, rows="zstd"), 2)
    first.learn(3)
    known = held(first.shards)
    first.learn(3)
    first.kill()
    assert next_start(tmp_path / "kept") == 1
    if live != "kept":
        if live == "saved":
            salvage(tmp_path / "live", tmp_path / "kept" / "log", "zstd")
        shutil.rmtree(tmp_path / "live")
    places = places_of(tmp_path, rows="zstd", start=1)
    assert prepare_restart(TABLES, places, shards=shards, seed=5, version=3)
    second = Start(places, shards)
    assert [shard.drawn for shard in second.shards] == [3] * shards
    assert [shard.holdings["fresh"].held for shard in second.shards] == [0] * shards
    found = held(second.shards)
    wanted = {window: priority for window, priority in known.items() if window in found}
    assert {window: priority for window, priority in found.items() if window in wanted} == wanted
    assert len(found) >= len(known) if live != "lost" else len(found) > 0
    if shards < 4:  # two writers would be too few
        second.learn(6)
        assert {name.partition("w")[0] for shard in second.shards for name in shard.segments.ledgers} == {"s0", "s1"}
        second.revive()
        second.learn(2)
    second.close()


def test_draws_that_a_checkpoint_knows_of_are_logged_although_everything_died_before_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(draw_log, "SECONDS", float("inf"))  # after which what waits is written
    first = Start(places_of(tmp_path, rows="zstd"), 2)
    first.learn(3)
    first.kill()
    log = first.places.log
    assert not logged(log, 0)
    assert prepare_restart(TABLES, places_of(tmp_path, rows="zstd", start=1), shards=2, seed=5, version=2)
    assert logged(log, 0) == logged(log, 1) == {0, 1}


def logged(log: Path, shard: int) -> set[int]:
    """The steps whose draws of a shard are in the log."""
    return {step for path in log.glob(f"draws-*-{shard}-*.arrows") for step in read_draws(path)["step"].to_pylist()}


def test_nothing_to_go_on_with(tmp_path: Path):
    places = places_of(tmp_path, start=1)
    assert not prepare_restart(TABLES, places, shards=1, seed=0, version=0)
    first = Start(places_of(tmp_path, start=1), 1)
    first.learn(2)
    first.kill()
    later = places_of(tmp_path, start=2)
    other = TABLES | {"any": Table(batch=4, select="prioritised", window=3, lead=1, within=("episode",))}
    with pytest.raises(TableError, match='table "any" was'):
        prepare_restart(other, later, shards=1, seed=5, version=2)
    assert next_start(tmp_path / "kept") == 2
    assert prepare_restart(TABLES, later, shards=1, seed=5, version=0)
    shard, recorder = open_shard(TABLES, later, shards=1, index=0, seed=5)
    assert shard.drawn == 0
    assert np.isclose(shard.statistics()["any/windows"], 0)
    shard.close()
    recorder.close()
