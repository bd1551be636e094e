"""A store that died goes on as new shards, as many as before or another number, with the rows that it had."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import Sampler, SegmentInfo, Shard, Table, TableError
from replay.journal import Journal
from replay.recovery import Recorder, recover, reopened
from tests.replay.store import SCHEMA, Hand, Messages, assert_rows, examples

TABLES = {
    "any": {"batch": 4, "select": "uniform", "window": 2, "lead": 2, "capacity": 4000},
    "urgent": {"batch": 4, "select": "prioritised", "window": 3, "within": ("episode",), "capacity": 4000, "lead": 1},
    "best": {"batch": 4, "select": "max", "remove": "min", "window": 1, "capacity": 4000},
    "fresh": {"batch": 4, "window": 3, "capacity": 40, "remove": "fifo"},
    "twice": {"batch": 4, "select": "lifo", "reads": 2, "remove": "fifo", "window": 1, "capacity": 60},
}
WATCH = ("episode",)
Held = dict[tuple[str, int, int], tuple[float, int, int]]
ACTIONS = st.lists(
    st.tuples(st.just("write"), st.integers(0, 2), st.tuples(st.integers(0, 9), st.integers(0, 9)))
    | st.just(("draw",))
    | st.tuples(st.just("restart"), st.integers(0, 2))
    | st.just(("prioritise",)),
    min_size=5,
    max_size=25,
)


def held(shards: list[Shard], name: str) -> Held:
    """Priority, reads and version of every window, by writer, stream and first row."""
    found = {}
    for shard in shards:
        _, columns, priorities = shard.holdings[name].live()
        for (source, start, _, version, reads, _), priority in zip(columns.tolist(), priorities.tolist(), strict=True):
            stream, place, _, _ = shard.sources.facts[source].tolist()
            found[shard.sources.ledger(place).name, stream, start] = (priority, version, reads)
    return found


class Run:
    """A store of some shards with rows in files; its writers and its learner are told by hand."""

    def __init__(self, folder: Path, shards: list[Shard], start: int) -> None:
        self.folder, self.shards, self.start = folder, shards, start
        self.tables, self.count = shards[0].tables, len(shards)
        self.recorders = [
            Recorder(each, Journal(folder / f"journal-{start}", f"shard-{each.index}")) for each in shards
        ]
        self.sampler = Sampler(SCHEMA, self.tables, shards, buffers=2)
        self.births, self.step, self.version = [0] * 4, shards[0].drawn, 0
        self.hands = [self.hand(number) for number in range(4)]
        self.read: list[dict[str, dict[str, np.ndarray]]] = []

    def hand(self, number: int) -> Hand:
        name = f"r{self.start}w{number}.{self.births[number]}"
        # Every incarnation has streams of its own here, so that a row says who wrote it.
        streams = [100 * self.start + 10 * self.births[number] + 2 * number + slot for slot in (0, 1)]
        commit = self.shards[number % self.count].commit
        return Hand(name, streams, self.folder / "live", commit, rows_per_segment=5, watch=WATCH)

    def write(self, number: int, counts: tuple[int, int]) -> None:
        self.version += 1
        self.hands[number].rows(*counts)
        self.hands[number].commit(version=self.version)

    def restart(self, number: int) -> None:
        self.hands[number].writer.close()
        self.births[number] += 1
        self.hands[number] = self.hand(number)

    def draw(self) -> None:
        if any(shard.missing(self.step) for shard in self.shards):
            return
        batches = self.sampler.read(self.step)
        self.step += 1
        for name, table in self.tables.items():
            assert_rows(batches[name], table.lead, table.within)
        self.read.append(
            {name: {key: np.array(value) for key, value in batch.items()} for name, batch in batches.items()}
        )

    def prioritise(self) -> None:
        for name, batch in self.read[-1].items() if self.read else ():
            self.sampler.prioritise(name, batch["item"], (batch["start"] % 7 + 0.5).astype(np.float64))

    def die(self) -> list[Shard]:
        """What their journals say of the shards; the files are as they were."""
        for recorder in self.recorders:
            recorder.close()
        self.sampler.close()
        found = [recover(self.folder / f"journal-{self.start}", f"shard-{place}") for place in range(self.count)]
        return [shard for shard in found if shard is not None]


def begun(folder: Path, shards: int, names: list[str]) -> Run:
    tables = {name: Table(**TABLES[name]) for name in names}
    return Run(folder, [Shard(tables, shards=shards, index=index, seed=4) for index in range(shards)], 0)


def expected(shards: list[Shard], names: list[str], lost: set[str]) -> dict[str, Held]:
    """What should be left of what was held: all that can be read again."""
    found = {}
    for name in names:
        table = shards[0].tables[name]
        found[name] = {} if table.read_limit else held(shards, name)
        for shard in shards:
            _, columns, _ = shard.holdings[name].live()
            for source, start, floor, *_ in columns.tolist():
                stream, place, _, _ = shard.sources.facts[source].tolist()
                writer = shard.sources.ledger(place).name
                touched = range(max(floor, start - table.lead) // 5, (start + table.window - 1) // 5 + 1)
                if any(f"{writer}-{index:06d}.arrow" in lost for index in touched):
                    found[name].pop((writer, stream, start), None)
    return found


@examples(16)
@given(
    names=st.sets(st.sampled_from(sorted(TABLES)), min_size=1).map(sorted),
    before=st.sampled_from([1, 2]),
    after=st.sampled_from([1, 2, 4]),
    lose=st.sampled_from([0, 0, 3]),
    actions=ACTIONS,
    more=ACTIONS,
)
def test_a_store_goes_on_as_other_shards(names: list[str], before: int, after: int, lose: int, actions, more):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        run = begun(Path(place), before, names)
        for name, *arguments in actions:
            getattr(run, name)(*arguments)
        formers = run.die()
        for holding in [holding for former in formers for holding in former.holdings.values()]:
            holding.settle()
        lost = sorted((Path(place) / "live").glob("*.arrow"))[::lose] if lose else []
        for path in lost:
            path.unlink()
        wanted = expected(formers, names, {path.name for path in lost})
        slots = [former.holdings[name].live()[0].tolist() for name in names for former in formers if wanted[name]]

        def locate(segment: SegmentInfo) -> SegmentInfo | None:
            return segment if Path(segment.path).exists() else None

        shards = reopened(formers, run.tables, shards=after, seed=4, locate=locate)
        assert [shard.index for shard in shards] == list(range(after))
        assert {shard.drawn for shard in shards} == {run.step}
        assert {name: held(shards, name) for name in names} == wanted
        if before == after and not lost:  # ids stay as they were
            assert slots == [
                shard.holdings[name].live()[0].tolist() for name in names for shard in shards if wanted[name]
            ]
        for shard in shards:
            shard.segments.thaw(Path(place) / "live", None)
        assert_goes_on(Path(place), shards, run, more)


def assert_goes_on(folder: Path, shards: list[Shard], former: Run, actions: list) -> None:
    """New writers and the learner use the shards; nothing that was read once is read again; all files go at the end."""
    run = Run(folder, shards, 1)
    for name, *arguments in actions:
        getattr(run, name)(*arguments)
    for number in range(4):
        run.write(number, (24, 24))
    run.draw()
    run.prioritise()
    assert run.step > former.step
    for name, table in run.tables.items():
        if table.read_limit:
            windows: Counter[tuple[int, int]] = Counter()
            for read in [*former.read, *run.read]:
                windows.update(zip(read[name]["stream"].tolist(), read[name]["start"].tolist(), strict=True))
            assert max(windows.values()) <= table.read_limit
    again = run.die()
    assert [shard.statistics() for shard in again] == [shard.statistics() for shard in shards]
    for hand in [*former.hands, *run.hands]:
        hand.writer.close()
    for shard in shards:
        shard.close()
    left = {path.name for path in (folder / "live").iterdir()}
    assert {name for name in left if name.startswith("r1") and name.endswith(".arrow")} == set()


def test_the_oldest_still_leave_first_whoever_wrote_them():
    """Windows of several writers come together in another number of shards, and do not queue writer by writer."""
    formers = [Shard({"any": Table(batch=4, select="uniform", capacity=40)}, shards=2, index=n, seed=0) for n in (0, 1)]
    writers = [Messages(f"w{n}", [n], formers[n % 2].commit) for n in range(4)]
    for version in range(5):
        for writer in writers:
            writer.block(2, version=version)
    (shard,) = reopened(formers, formers[0].tables, shards=1, seed=0, locate=lambda segment: segment)
    Messages("new", [9], shard.commit).block(20, version=5)
    shard.draw(0)
    assert Counter(version for _, version, _ in held([shard], "any").values()) == {2: 4, 3: 8, 4: 8, 5: 20}
    assert shard.statistics()["any/rows_dropped"] == 0


def test_a_ratio_begins_again_where_the_minimum_is_held_already():
    table = Table(batch=4, select="uniform", samples_per_insert=1.0, min_items=20)
    formers = [Shard({"any": table}, shards=2, index=index, seed=0) for index in (0, 1)]
    for former in formers:
        Messages(f"w{former.index}", [former.index], former.commit).block(60)
    (shard,) = reopened(formers, {"any": table}, shards=1, seed=0, locate=lambda segment: segment)
    assert shard.statistics()["any/balance"] == 0
    assert shard.admits()
    shard.draw(0)


def test_tables_that_read_other_windows_are_refused():
    tables = {"any": Table(batch=4, select="uniform", window=3)}
    former = Shard(tables, seed=0)
    former.limit("any", {"min_items": 9})

    def again(**changes) -> list[Shard]:
        return reopened([former], {"any": replace(tables["any"], **changes)}, shards=1, seed=0, locate=lambda s: s)

    assert again()[0].tables["any"].min_items == 9
    assert again(tolerance=30.0)
    for changes in ({"window": 4}, {"capacity": 50}, {"select": "max"}, {"within": ("episode",)}):
        with pytest.raises(TableError, match=r'table "any" was .*, now it is .*: start a new run'):
            again(**changes)
