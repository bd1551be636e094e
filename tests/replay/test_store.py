"""Whatever the interleaving of writers, shards and ranks, the store hands out what was written, once."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replay import NotReady, Sampler, Shard, Table
from tests.replay.store import SCHEMA, Hand
from tests.replay.test_sampler import assert_rows


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Table]:
    window = draw(st.integers(1, 6))
    fresh = Table(
        batch=4,
        window=window,
        lead=draw(st.integers(0, 3)),
        stride=draw(st.integers(1, window + 9)),
        max_lag=draw(st.sampled_from([None, 0, 1])),
        capacity=draw(st.integers(4, 12)),
    )
    chosen = Table(
        batch=4,
        window=draw(st.integers(1, 5)),
        lead=draw(st.integers(0, 3)),
        stride=draw(st.integers(1, 3)),
        select="uniform",
        capacity=draw(st.integers(4, 20)),
    )
    return {"fresh": fresh, "any": chosen} if draw(st.booleans()) else {"fresh": fresh}


# (writer, rows of each of its two streams, whether a newer version decides them, 0: repeat the commit, 1: restart)
ACTIONS = st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.integers(0, 9))


class Store:
    """A whole store in one process: three writers, some shards, some ranks."""

    def __init__(self, folder: Path, tables: dict[str, Table], shards: int, ranks: int, rows: int) -> None:
        self.folder, self.tables, self.rows = folder, tables, rows
        self.shards = [Shard(tables, shards=shards, index=index, seed=1) for index in range(shards)]
        self.samplers = [Sampler(SCHEMA, tables, self.shards, rank=rank, ranks=ranks) for rank in range(ranks)]
        self.hands = [self.start(number, 0) for number in range(3)]
        self.closed: list[Hand] = []
        self.births = [0, 0, 0]
        self.versions: dict[tuple[int, int], int] = {}
        self.seen: Counter = Counter()
        self.step = self.version = 0

    def start(self, number: int, birth: int) -> Hand:
        # Each incarnation has its own stream ids here, so that a row says which one wrote it.
        shard = self.shards[number % len(self.shards)]
        streams = [20 * birth + 2 * number, 20 * birth + 2 * number + 1]
        return Hand(f"w{number}.{birth}", streams, self.folder, shard.commit, rows_per_segment=self.rows)

    def write(self, number: int, counts: tuple[int, int]) -> None:
        hand = self.hands[number]
        for stream, begin, count in zip(hand.streams.tolist(), hand.next.tolist(), counts, strict=True):
            self.versions |= {(stream, row): self.version for row in range(begin, begin + count)}
        for row in range(max(counts)):
            slots = np.array([slot for slot, count in enumerate(counts) if row < count])
            hand.append(None if len(slots) == 2 else slots)
        hand.commit(version=self.version)

    def read(self) -> None:
        try:
            batches = [sampler.read(self.step) for sampler in self.samplers]
        except NotReady:
            return
        self.step += 1
        for batch in batches:
            for name, table in self.tables.items():
                assert_rows(batch[name], table.lead)
                if table.reads_once:
                    self.note(batch[name], table)

    def note(self, batch: dict[str, np.ndarray], table: Table) -> None:
        for stream, start, mask in zip(batch["stream"].tolist(), batch["start"].tolist(), batch["mask"], strict=True):
            owned = range(start, start + table.owned_rows)
            assert np.flatnonzero(mask).tolist() == [table.lead + place for place in range(len(owned))]
            self.seen.update((stream, row) for row in owned)
            if table.max_lag is not None:
                versions = {self.versions[stream, row] for row in owned}
                assert max(versions) - min(versions) <= table.max_lag

    def close(self) -> None:
        for hand in [*self.hands, *self.closed]:
            hand.writer.close()
        for shard in self.shards:
            shard.close()
        for sampler in self.samplers:
            sampler.close()


@settings(max_examples=80)
@given(
    tables=tables(),
    shards=st.integers(1, 2),
    ranks=st.integers(1, 2),
    rows=st.integers(1, 9),
    actions=st.lists(ACTIONS, min_size=4, max_size=25),
)
def test_the_store_keeps_its_promises(tables, shards, ranks, rows, actions):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        store = Store(Path(folder), tables, shards, ranks, rows)
        for number, first, second, newer, resend in actions:
            store.version += newer
            store.write(number, (first, second))
            if resend == 0:
                store.shards[number % shards].commit(store.hands[number].sent[-1])
            store.read()
            if resend == 1:
                store.closed.append(store.hands[number])
                store.births[number] += 1
                store.hands[number] = store.start(number, store.births[number])
        assert max(store.seen.values(), default=1) == 1
        store.close()
        assert list(Path(folder).iterdir()) == []


def test_nothing_is_left_out(tmp_path: Path):
    table = Table(batch=4, window=5, stride=4)
    store = Store(tmp_path, {"fresh": table}, shards=1, ranks=2, rows=7)
    for _ in range(10):
        for number in range(3):
            store.write(number, (4, 4))
        for _ in range(3):
            store.read()
    assert store.seen == Counter(store.versions) | Counter(dict.fromkeys(store.versions, 1))
