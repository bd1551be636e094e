"""Whatever the interleaving of writers, shards and ranks, and whoever dies: the store hands out what was written.

`CONTRAIL_THOROUGH=20 pytest tests/replay/test_store.py` tries 3,000 interleavings instead of 150.
"""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay import Draw, NotReady, Sampler, Shard, Table
from replay.archive import Archivist, read_archived
from replay.ids import shard_of
from replay.journal import Journal
from replay.recovery import Recorder, recover
from replay.table import KINDS, watched
from tests.replay.store import SCHEMA, Hand, assert_rows, examples, rows_of

WITHIN = st.sampled_from([(), (), ("episode",), ("episode", "task")])


@st.composite
def tables(draw: st.DrawFn) -> dict[str, dict]:
    found = {}
    if draw(st.integers(0, 3)):
        window = draw(st.integers(1, 6))
        found["fresh"] = {
            "batch": 4,
            "window": window,
            "lead": draw(st.integers(0, 3)),
            "stride": draw(st.integers(1, window + 9)),
            "max_lag": draw(st.sampled_from([None, 0, 1])),
            "capacity": draw(st.integers(4, 12)),
            "within": draw(WITHIN),
        }
    for name in ("one", "other")[: draw(st.integers(0 if found else 1, 2))]:
        arity = draw(st.integers(1, 2))
        found[name] = {
            "batch": 4,
            "arity": arity,
            "window": draw(st.integers(1, 5)),
            "lead": draw(st.integers(0, 3)),
            "stride": draw(st.none() | st.integers(1, 3)),
            "select": draw(st.sampled_from(KINDS)),
            "reads": draw(st.integers(0, 3)),
            "remove": draw(st.sampled_from([None, *KINDS])),
            "capacity": draw(st.integers(4 * arity, 30)),
            "within": draw(WITHIN),
        }
    return found


NUMBERS = st.integers(0, 2)
ACTIONS = st.one_of(
    *[st.tuples(st.just("write"), NUMBERS, st.tuples(st.integers(0, 9), st.integers(0, 9)), st.booleans())] * 5,
    *[st.just(("read",))] * 4,
    st.tuples(st.just("resend"), NUMBERS),
    st.tuples(st.just("restart"), NUMBERS),
    st.tuples(st.just("retire"), NUMBERS),
    st.tuples(st.just("prioritise"), st.sampled_from([0.0, 0.5, 3.0])),
    st.tuples(st.just("die"), NUMBERS),
)


class Process:
    """A shard that dies and becomes itself again; its callers do not notice."""

    def __init__(self, folder: Path, tables: dict[str, Table], shards: int, index: int, *, keep: bool) -> None:
        self._folder, self._name, self._keep = folder, f"shard-{index}", keep
        self.archive = self._archivist()
        self.shard = Shard(tables, shards=shards, index=index, seed=1, archive=self.archive)
        self._recorder = Recorder(self.shard, Journal(folder / "journal", self._name))

    def _archivist(self) -> Archivist | None:
        return Archivist(self._folder / "log" / self._name) if self._keep else None

    def die(self) -> None:
        self._recorder.close()
        if self.archive:
            self.archive.close()
        self.archive, shard = self._archivist(), recover(self._folder / "journal", self._name)
        assert shard is not None
        self.shard = shard
        self.shard.segments.thaw(self._folder / "live", self.archive)
        self._recorder = Recorder(self.shard, Journal(self._folder / "journal", self._name))

    def close(self) -> None:
        self.shard.close()
        self._recorder.close()

    def commit(self, commit) -> None:
        self.shard.commit(commit)

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        return self.shard.draw(step, rank, ranks)

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        self.shard.prioritise(table, ids, priorities)


class Store:
    """A whole store in one process: three writers, some shards, some ranks."""

    def __init__(
        self, folder: Path, tables: dict[str, Table], shards: int, ranks: int, rows: int, *, keep: bool = False
    ) -> None:
        self.folder, self.tables, self.rows = folder, tables, rows
        self.shards = [Process(folder, tables, shards, index, keep=keep) for index in range(shards)]
        self.samplers = [Sampler(SCHEMA, tables, self.shards, rank=rank, ranks=ranks) for rank in range(ranks)]
        self.births = [0, 0, 0]
        self.hands = [self.start(number) for number in range(3)]
        self.closed: list[Hand] = []
        self.given_up: set[int] = set()  # streams of writers that were
        self.versions: dict[tuple[int, int], int] = {}  # of each row
        self.complete: Counter[int] = Counter()  # rows of each stream that the shard knows
        self.formed: dict[int, Counter[int]] = {}  # the same when each shard formed the next draw
        self.seen: dict[str, Counter] = {
            name: Counter() for name in tables
        }  # how often a row's decision was trained on
        self.windows: dict[tuple[str, int], tuple[int, int]] = {}  # by table and id
        self.reads: Counter[tuple[str, int]] = Counter()
        self.step = self.version = 0

    def start(self, number: int) -> Hand:
        # Each incarnation has its own stream ids here, so that a row says which one wrote it.
        first = 20 * self.births[number] + 2 * number
        commit = self.shards[number % len(self.shards)].commit
        name, facts = f"w{number}.{self.births[number]}", {"rows_per_segment": self.rows, "watch": watched(self.tables)}
        return Hand(name, [first, first + 1], self.folder / "live", commit, **facts)

    def write(self, number: int, counts: tuple[int, int], newer: bool = False) -> None:
        hand, self.version = self.hands[number], self.version + newer
        hand.rows(*counts)
        hand.commit(version=self.version)
        for stream, end in zip(hand.streams.tolist(), hand.next.tolist(), strict=True):
            if stream not in self.given_up:
                self.versions |= {(stream, row): self.version for row in range(self.complete[stream], end)}
                self.complete[stream] = end

    def resend(self, number: int) -> None:
        for commit in self.hands[number].sent[-2:]:
            self.shards[number % len(self.shards)].commit(commit)

    def restart(self, number: int) -> None:
        """Another incarnation takes the streams of a writer over, which is only known to be dead."""
        self.retire(number)
        self.closed.append(self.hands[number])
        self.births[number] += 1
        self.hands[number] = self.start(number)

    def retire(self, number: int) -> None:
        self.shards[number % len(self.shards)].shard.retire(self.hands[number].writer.name)
        if self.hands[number].sent:
            self.given_up |= set(self.hands[number].streams.tolist())

    def die(self, number: int) -> None:
        self.shards[number % len(self.shards)].die()

    def prioritise(self, priority: float) -> None:
        for (name, item), (_, start) in self.windows.items():
            if start % 3 == 0:
                self.samplers[0].prioritise(name, np.array([item]), np.array([priority]))

    def read(self) -> None:
        try:
            batches = [sampler.read(self.step) for sampler in self.samplers]
        except NotReady:
            batches = None
        for place, process in enumerate(
            self.shards
        ):  # one that could answer has formed its part, though others could not
            if self.step in process.shard._draws.formed:
                self.formed.setdefault(place, self.complete.copy())
        if batches is None:
            return
        self.step += 1
        for name, table in self.tables.items():
            drawn = Counter[int]()
            for batch in (batches_of[name] for batches_of in batches):
                assert_rows(batch, table.lead, table.within)
                drawn.update(batch["item"].ravel().tolist())
                self.note(
                    name, table, {key: batch[key].reshape(-1, *batch[key].shape[batch["item"].ndim :]) for key in USED}
                )
            assert drawn.total() == table.batch_windows
            assert max(drawn.values()) == 1 or (table.select == "prioritised" and not table.read_limit)
        self.formed = {}

    def note(self, name: str, table: Table, batch: dict[str, np.ndarray]) -> None:
        for stream, start, item, mask in zip(*(batch[key].tolist() for key in USED), strict=True):
            complete = self.formed[int(shard_of(np.array([item]))[0])][stream]
            owned = range(start, min(start + table.owned_rows, complete))
            assert np.flatnonzero(mask).tolist() == [table.lead + place for place in range(len(owned))]
            assert self.windows.setdefault((name, item), (stream, start)) == (stream, start)
            self.reads[name, item] += 1
            self.seen[name].update((stream, row) for row in owned)
            if table.reads_once:
                assert len(owned) == table.owned_rows
            if table.max_lag is not None:
                versions = {self.versions[stream, row] for row in owned}
                assert max(versions) - min(versions) <= table.max_lag

    def check(self) -> None:
        formed = [process.shard._draws.formed.get(self.step) for process in self.shards]
        for name, table in self.tables.items():
            known = Counter({item: count for (of, item), count in self.reads.items() if of == name})
            for draw in filter(None, formed):
                known.update(draw.items[name].ids.tolist())
            reads = known.values()
            total = Counter[str]()
            for process in self.shards:
                total.update(process.shard.holdings[name].counts | {"held": process.shard.holdings[name].held})
            spent = sum(count == table.read_limit for count in reads) if table.read_limit else 0
            assert total["inserted"] == total["held"] + total["evicted"] + spent
            assert total["drawn"] == sum(reads)
            if table.read_limit:
                assert max(reads, default=0) <= table.read_limit
            if table.reads_once:
                assert max(self.seen[name].values(), default=1) == 1

    def close(self) -> None:
        for hand in [*self.hands, *self.closed]:
            hand.writer.close()
        for closing in (*self.shards, *self.samplers):
            closing.close()

    def archived(self) -> dict[int, list[int]]:
        """By stream the rows with a decision that the archives have; all of them are what was written."""
        found: dict[int, list[int]] = {}
        for path in sorted((self.folder / "log").rglob("*.arrow")):
            batch = read_archived(path, ["stream", "row", "mask", "action", "reward"])
            columns = {name: batch.column(name).to_numpy() for name in batch.schema.names}
            decided = columns["mask"] == 1
            wanted = rows_of(columns["stream"], columns["row"])
            for name in ("action", "reward"):
                np.testing.assert_array_equal(columns[name][decided], wanted[name][decided])
            for stream, row in zip(columns["stream"][decided].tolist(), columns["row"][decided].tolist(), strict=True):
                found.setdefault(stream, []).append(row)
        return found


USED = ("stream", "start", "item", "mask")


@examples(75)
@given(
    tables=tables(),
    shards=st.integers(1, 2),
    ranks=st.integers(1, 2),
    rows=st.sampled_from([1, 3, 4, 6, 9]),
    keep=st.integers(0, 5).map(lambda number: number == 0),
    actions=st.lists(ACTIONS, min_size=4, max_size=40),
)
def test_the_store_keeps_its_promises(tables, shards: int, ranks: int, rows: int, keep: bool, actions: list):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        made = {name: Table(**fields) for name, fields in tables.items()}
        store = Store(Path(folder), made, shards, ranks, rows, keep=keep)
        for name, *arguments in actions:
            getattr(store, name)(*arguments)
            store.check()
        for number in (0, 1, 2, 0):
            store.write(number, (6, 7), newer=True)
            store.read()
            store.check()
        store.close()
        assert list((Path(folder) / "live").iterdir()) == []
        if keep:
            found = store.archived()
            for stream, end in store.complete.items():
                rows = found.pop(stream, [])
                # The row that was open when a writer was given up is there, too; who is not dead may have completed it.
                assert sorted(rows) in ([*range(end)], [*range(end + (stream in store.given_up))])
            assert not any(found.values())


def test_nothing_is_left_out(tmp_path: Path):
    table = Table(batch=4, window=5, stride=4)
    store = Store(tmp_path, {"fresh": table}, shards=1, ranks=2, rows=7)
    for turn in range(10):
        for number in range(3):
            store.write(number, (4, 4))
        if turn % 4 == 1:
            store.die(0)
        for _ in range(3):
            store.read()
    assert store.seen["fresh"] == Counter(dict.fromkeys(store.versions, 1))
    assert len(store.versions) == 10 * 3 * 8
    store.close()
