"""Gathering: copying scattered rows of several segments into one batch."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from replay.messages import Draw, Items

RUNS_PER_GROUP = 16  # a run costs 0.2 us to copy, an indexed group about 4 us


class Plan:
    """Which rows of which segments a batch consists of; the same for every column.

    A run is a stretch of rows that follow one another in a segment and in the batch.

    Args:
        segments: keys of the segments that are read.
        runs: (3, n): each run's place in `segments`, first row there and length, in the order of the batch.
    """

    def __init__(self, segments: tuple[tuple[str, int], ...], runs: np.ndarray) -> None:
        self.segments, self._runs = segments, runs

    def copy(self, sources: Sequence[np.ndarray], target: np.ndarray) -> None:
        """Fill `target` (rows, *shape) from each segment's rows (rows, *shape)."""
        # Indexing copies twice and costs per group; slices copy once and cost per run.
        if target[0].nbytes >= 512 or self._runs.shape[1] <= RUNS_PER_GROUP * len(self.segments):
            np.concatenate([sources[segment][part] for segment, part in self._slices], out=target)
        else:
            for source, (rows, places) in zip(sources, self._groups, strict=True):
                target[places] = source.take(rows, axis=0, mode="clip")

    @cached_property
    def _slices(self) -> list[tuple[int, slice]]:
        return [(segment, slice(first, first + length)) for segment, first, length in self._runs.T.tolist()]

    @cached_property
    def _groups(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each segment, the rows to read and the rows to fill."""
        segment, first, length = self._runs
        ends = np.cumsum(length)
        rows = np.repeat(first - (ends - length), length) + np.arange(ends[-1])
        of_row = np.repeat(segment, length)
        return [
            (rows[places], places) for places in map(np.flatnonzero, of_row == np.arange(len(self.segments))[:, None])
        ]


def plan_of(items: Items, draw: Draw, *, lead: int, window: int) -> Plan:
    """The plan for windows of one table: lead rows, then the window, item after item."""
    rows_per_segment = np.array(draw.rows_per_segment, np.int64)[items.writers]
    begins, last = items.starts - lead, items.starts + (window - 1)
    index = np.maximum(begins, items.floors) // rows_per_segment
    whole = (begins >= items.floors) & (last // rows_per_segment == index)
    if whole.all():  # each is one run
        codes, local = _located(items.writers, items.slots, begins, rows_per_segment)
        lengths = np.full(len(begins), lead + window)
    else:
        codes, local, lengths = _broken(items, rows_per_segment, lead, window)
    distinct, places = np.unique(codes, return_inverse=True)
    keys = tuple((draw.writers[code >> 40], code & ((1 << 40) - 1)) for code in distinct.tolist())
    return Plan(keys, np.stack([places, local, lengths]))


def _located(
    writers: np.ndarray, slots: np.ndarray, rows: np.ndarray, rows_per_segment: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The segment of each row, as one number of its writer and index, and the row's place there."""
    index, offset = np.divmod(rows, rows_per_segment)
    return writers << 40 | index, slots * rows_per_segment + offset


def _broken(
    items: Items, rows_per_segment: np.ndarray, lead: int, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs where some window crosses a segment's end, or repeats the row at its floor: code, first row, length."""
    # Nothing is read before a window's floor: that row is repeated in front of it.
    rows = np.maximum(items.starts[:, None] + np.arange(-lead, window), items.floors[:, None])
    codes, local = _located(items.writers[:, None], items.slots[:, None], rows, rows_per_segment[:, None])
    codes, local = codes.ravel(), local.ravel()
    breaks = (np.diff(codes, prepend=-1) != 0) | (np.diff(local, prepend=-2) != 1)
    firsts = np.flatnonzero(breaks)
    return codes[firsts], local[firsts], np.diff(firsts, append=len(local))
