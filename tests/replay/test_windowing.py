"""The windows that a table makes of streams, against a slow and obvious version of the same."""

import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replay import Shard, Table, TableError
from replay.sources import Sources
from replay.windowing import Windowing
from tests.replay.store import CHANGES, Messages, run_begins

WITHIN = st.sampled_from([(), ("episode",), ("task",), ("episode", "task")])
# rows that each of three streams grows by, the version that decides them, whether the commit is told again
BLOCKS = st.lists(
    st.tuples(*[st.integers(0, 12)] * 3, st.integers(0, 1), st.booleans(), st.booleans()), min_size=1, max_size=15
)


@st.composite
def tables(draw: st.DrawFn) -> dict:
    reads = draw(st.sampled_from([0, 1, 2]))
    return {
        "batch": 1,
        "select": "lifo" if reads == 1 else "uniform",
        "reads": reads,
        "remove": "fifo",
        "capacity": 100_000,
        "window": draw(st.integers(1, 6)),
        "stride": draw(st.none() | st.integers(1, 9)),
        "lead": draw(st.integers(0, 3)),
        "within": draw(WITHIN),
    }


def runs(stream: int, rows: int, within: tuple[str, ...]) -> list[tuple[int, int]]:
    """(first row, one past the last) of each stretch without a change."""
    changed = [row for row in range(1, rows) if any(CHANGES[name][stream % 16, row] for name in within)]
    return list(zip([0, *changed], [*changed, rows], strict=True))


def obvious(table: Table, stream: int, complete: int) -> list[tuple[int, int]]:
    """(start, floor) of all windows of a stream, of which so many rows are complete and one more is open."""
    if table.within:
        found = []
        for begin, end in runs(stream, complete, table.within):
            found += [(start, begin) for start in range(begin, end - table.window + 1, table.stride_rows)]
        return found
    starts, decided = range(0, complete + 1, table.stride_rows), table.owned_rows if table.reads_once else 1
    return [(s, 0) for s in starts if s + table.window <= complete + 1 and s + decided <= complete]


class Table1:
    """One table's windowing of one writer's streams, told block by block."""

    def __init__(self, table: Table, streams: list[int], *, first: int = 0, rows_per_segment: int = 5) -> None:
        self.table, self.sources = table, Sources()
        self.writer = Messages("a", streams, self.take, rows_per_segment=rows_per_segment, watch=table.within)
        self.writer.next += first
        self.writer._begins += first
        self.found: dict[int, list[tuple[int, int]]] = {stream: [] for stream in streams}
        self.ledger = self.windowing = None

    def take(self, commit) -> None:
        if self.ledger is None:
            self.ledger = self.sources.welcome(commit)
            self.windowing = Windowing(self.table, self.ledger, version=commit.version)
        self.windowing = pickle.loads(pickle.dumps(self.windowing))  # as after a restart
        self.ledger = self.windowing._ledger
        begins, self.ledger.end = self.ledger.end - 1, np.maximum(self.ledger.end, np.array(commit.ends))
        windows = self.windowing.extend(begins, version=commit.version, changes=commit.changes)
        streams = self.sources.facts[windows.sources, 0]
        for stream, start, floor in zip(
            streams.tolist(), windows.starts.tolist(), windows.floors.tolist(), strict=True
        ):
            self.found[stream].append((start, floor))


@given(fields=tables(), blocks=BLOCKS)
@example(
    fields={"batch": 1, "window": 5, "stride": 4, "within": ("episode",), "lead": 2}, blocks=[(9, 0, 3, 0, 1, 1)] * 9
)
def test_windows_are_the_obvious_ones(fields: dict, blocks: list):
    table = Table(**fields)
    told = Table1(table, [4, 9, 2])
    for *counts, _, again, both in blocks:
        told.writer.block(*counts)
        if again:  # a commit whose answer was lost is followed by one that tells the same rows, and perhaps more
            begins = told.writer.sent[-1].begins
            told.writer._begins = np.array(begins)
            told.writer.block(*(counts if both else (0, 0, 0)))
    for stream, rows in zip([4, 9, 2], told.writer.next.tolist(), strict=True):
        assert told.found[stream] == obvious(table, stream, rows)
    assert_needed(told)


def assert_needed(told: Table1) -> None:
    """No row is let go that a later window reads."""
    table, needed = told.table, np.minimum(told.windowing.needed(), told.ledger.end - 1)
    for slot, stream in enumerate(told.writer.streams):
        rows = int(told.writer.next[slot])
        later = obvious(table, stream, rows + 60)[len(obvious(table, stream, rows)) :]
        assert needed[slot] <= min(max(floor, start - table.lead) for start, floor in later)


@given(fields=tables(), blocks=BLOCKS)
def test_rows_that_no_window_has_are_counted_when_that_is_certain(fields: dict, blocks: list):
    table = Table(**fields | {"stride": min(fields["stride"] or 1, fields["window"])})
    told = Table1(table, [4, 9, 2])
    for *counts, _, _, _ in blocks:
        told.writer.block(*counts)
    told.windowing.retire(np.arange(3))
    missing = 0
    for stream, rows in zip([4, 9, 2], told.writer.next.tolist(), strict=True):
        starts = [start for start, _ in told.found[stream]]
        missing += len(set(range(rows)) - {start + row for start in starts for row in range(table.owned_rows)})
    assert told.windowing.dropped == missing


@given(fields=tables(), first=st.integers(1, 40), blocks=BLOCKS)
def test_a_shard_that_comes_late_reads_nothing_before_what_it_knows(fields: dict, first: int, blocks: list):
    table = Table(**fields)
    told = Table1(table, [4, 9, 2], first=first)
    for *counts, _, _, _ in blocks:
        told.writer.block(*counts)
    for slot, (stream, found) in enumerate(told.found.items()):
        assert all(start - table.lead >= first or floor >= first for start, floor in found)
        starts = [start for start, _ in found]
        assert starts == sorted(set(starts))
        rows = np.full(len(found), told.writer.next[slot])
        if table.within:
            begins = run_begins(np.full(len(found), stream), np.array(starts, np.int64), table.within)
            assert [floor for _, floor in found] == np.maximum(first, begins).tolist()
            assert (np.array(starts) + table.window <= rows).all()


@given(
    window=st.integers(1, 5),
    stride=st.integers(1, 7),
    within=WITHIN,
    lag=st.integers(0, 2),
    blocks=st.lists(
        st.tuples(*[st.integers(0, 9)] * 3, st.integers(0, 2), *[st.just(False)] * 2), min_size=1, max_size=15
    ),
)
def test_no_window_mixes_versions_that_are_too_far_apart(window: int, stride: int, within, lag: int, blocks: list):
    table = Table(batch=1, window=window, stride=stride, within=within, max_lag=lag, lead=1)
    told, version, versions = Table1(table, [4, 9, 2]), 0, {stream: [] for stream in (4, 9, 2)}
    for *counts, newer, _, _ in blocks:
        version += newer
        for stream, count in zip(versions, counts, strict=True):
            versions[stream] += [version] * count
        told.writer.block(*counts, version=version)
    owned, handed_out = 0, 0
    for stream, found in told.found.items():
        for start, _ in found:
            mine = versions[stream][start : start + table.owned_rows]
            assert len(mine) == table.owned_rows
            assert max(mine) - min(mine) <= lag
            handed_out += table.owned_rows
        assert within or (np.diff([start for start, _ in found]) >= stride).all()
        owned += len(versions[stream])
    if stride <= window and not within:  # nothing is lost without being counted
        waiting = int((told.writer.next - told.windowing.next).clip(0).sum())
        assert owned == handed_out + told.windowing.dropped + waiting


def test_columns_that_windows_stay_within_must_be_watched():
    shard = Shard({"any": Table(batch=1, within=("task", "episode"))}, seed=0)
    with pytest.raises(TableError, match=r'a does not watch column "task", .* make the writer with watch=watched\('):
        Messages("a", [0], shard.commit, watch=("episode",)).block(3)
    assert shard.statistics()["rows_committed"] == 0
    Messages("a", [0], shard.commit, watch=("episode", "task")).block(3)
    assert shard.statistics()["rows_committed"] == 3
