"""Gathering: copying scattered rows of several segments into one batch."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache

import numpy as np

from replay.messages import Draw, Items

RUNS_PER_GROUP = 16  # a run costs 0.2 us to copy, an indexed group about 4 us
INDEX_BITS = 40
"""Of the index in a number that stands for a segment; its writer is above."""
SHARED_BYTES = 2 * 2**20
"""From so many on two threads copy a batch: one alone does not use all that memory gives."""


class Columns(dict[str, np.ndarray]):
    """Columns of rows (n, *shape), by name, whose values lie one row after another.

    Attributes:
        addresses: (columns,) of their first rows.

    Raises:
        ValueError: a column's rows do not lie so.
    """

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        super().__init__(columns)
        if apart := [name for name, values in columns.items() if not values.flags.c_contiguous]:
            raise ValueError(f'column "{apart[0]}": its rows do not lie one after another; use another allocate')
        self.addresses = np.array([values.ctypes.data for values in columns.values()], np.int64)


class Plan:
    """Which rows of which segments a batch consists of; the same for every column.

    A run is a stretch of rows that follow one another in a segment and in the batch.

    Args:
        segments: keys of the segments that are read.
        runs: (4, n): each run's place in `segments`, first row there, length, first row in the batch; in the order of
            the batch, of which they fill every row.
    """

    def __init__(self, segments: tuple[tuple[str, int], ...], runs: np.ndarray) -> None:
        self.segments, self._runs = segments, np.ascontiguousarray(runs, np.int64)

    def copy(self, sources: Sequence[Columns], target: Columns, helper: Executor | None = None) -> None:
        """Fill `target` from each segment's rows.

        Args:
            sources: of `segments`; columns in the order of the target's.
            target: the batch.
            helper: copies a half where there is much to copy.
        """
        copy, count = quickest(), self._runs.shape[1]
        if helper is None or sum(values.nbytes for values in target.values()) < SHARED_BYTES or count < 2:
            copy(sources, target, self._runs, 0, count)
            return
        half = helper.submit(copy, sources, target, self._runs, count // 2, count)
        copy(sources, target, self._runs, 0, count // 2)
        half.result()


Copy = Callable[[Sequence[Columns], Columns, np.ndarray, int, int], None]
"""Copies the runs from one place in `Plan.runs` to another."""


def quickest() -> Copy:
    """How to copy now: compiled, once that is there."""
    compiled = compiling()
    return compiled.result() if compiled.done() else _copy_by_column


@cache
def compiling() -> Future[Copy]:
    """The compiled way to copy; loading numba takes half a second, for which no first batch should wait."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="numba")
    compiled = thread.submit(_copier)
    thread.shutdown(wait=False)
    return compiled


@cache
def _copier(*, compiled: bool = True) -> Copy:
    """How to copy: with numba where it is installed, and wanted."""
    if not compiled:
        return _copy_by_column
    try:
        copy_runs = importlib.import_module("replay.copying").copy_runs
    except ImportError:
        return _copy_by_column

    def copy(sources: Sequence[Columns], target: Columns, runs: np.ndarray, first: int, end: int) -> None:
        addresses = np.array([source.addresses for source in sources])
        sizes = np.array([values[0].nbytes for values in target.values()])
        copy_runs(addresses, target.addresses, sizes, runs, first, end)

    return copy


def _copy_by_column(sources: Sequence[Columns], target: Columns, runs: np.ndarray, first: int, end: int) -> None:
    runs = runs[:, first:end]
    begin, stop = int(runs[3, 0]), int(runs[3, -1] + runs[2, -1])
    slices = [(segment, slice(row, row + length)) for segment, row, length, _ in runs.T.tolist()]
    groups = _groups(runs, len(sources)) if len(slices) > RUNS_PER_GROUP * len(sources) else None
    for name, values in target.items():
        # Indexing copies twice and costs per group; slices copy once and cost per run.
        if groups is None or values[0].nbytes >= 512:
            np.concatenate([sources[segment][name][rows] for segment, rows in slices], out=values[begin:stop])
            continue
        for source, (rows, places) in zip(sources, groups, strict=True):
            values[places] = source[name].take(rows, axis=0, mode="clip")


def _groups(runs: np.ndarray, segments: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each segment, the rows to read and the rows to fill."""
    segment, first, length, place = runs
    ends = np.cumsum(length)
    of_run = np.repeat(np.arange(len(length)), length)
    within = np.arange(ends[-1]) - (ends - length)[of_run]
    rows, places = first[of_run] + within, place[of_run] + within
    mine = [np.flatnonzero(segment[of_run] == number) for number in range(segments)]
    return [(rows[here], places[here]) for here in mine]


def plan_of(items: Items, draw: Draw, *, lead: int, window: int) -> Plan:
    """The plan for windows of one table: lead rows, then the window, item after item."""
    rows_per_segment = np.array(draw.rows_per_segment, np.int64).take(items.writers)
    begins, length = items.starts - lead, lead + window
    index, offset = np.divmod(begins, rows_per_segment)
    codes = items.writers << INDEX_BITS | index
    places = np.arange(0, length * len(begins), length)
    runs = np.stack([codes, items.slots * rows_per_segment + offset, np.full(len(begins), length), places])
    whole = (begins >= items.floors) & (offset + length <= rows_per_segment)
    if not whole.all():
        broken = _broken(items, rows_per_segment, np.flatnonzero(~whole), lead, window)
        runs = np.concatenate([runs[:, whole], broken], axis=1)
        runs = runs[:, runs[3].argsort(kind="stable")]
    distinct = sorted(set(runs[0].tolist()))
    runs[0] = np.searchsorted(distinct, runs[0])
    keys = tuple((draw.writers[code >> INDEX_BITS], code & ((1 << INDEX_BITS) - 1)) for code in distinct)
    return Plan(keys, runs)


def _broken(items: Items, rows_per_segment: np.ndarray, chosen: np.ndarray, lead: int, window: int) -> np.ndarray:
    """Runs (4, n) of the windows that cross a segment's end, or repeat the row at their floor; codes for segments."""
    writers, slots, starts, floors, each = (
        values[chosen, None] for values in (items.writers, items.slots, items.starts, items.floors, rows_per_segment)
    )
    # Nothing is read before a window's floor: that row is repeated in front of it.
    rows = np.maximum(starts + np.arange(-lead, window), floors)
    index, offset = np.divmod(rows, each)
    codes, local = writers << INDEX_BITS | index, slots * each + offset
    breaks = (np.diff(codes, prepend=-1) != 0) | (np.diff(local, prepend=-2) != 1)
    breaks[:, 0] = True
    firsts = np.flatnonzero(breaks)
    places = (chosen[:, None] * (lead + window) + np.arange(lead + window)).ravel()[firsts]
    return np.stack([codes.ravel()[firsts], local.ravel()[firsts], np.diff(firsts, append=breaks.size), places])
