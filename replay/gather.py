"""Gathering: copying scattered rows of several segments into one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from replay.messages import Draw, Items

RUNS_PER_GROUP = 16  # a run costs 0.4 us to copy, an indexed group about 6 us


@dataclass(frozen=True, eq=False)
class Plan:
    """Which rows of which segments go where; the same for every column.

    Args:
        segments: keys of the segments that are read.
        runs: (segment, from, to, length), for each stretch of rows that is contiguous on both sides.
        groups: (segment, rows to read, rows to fill), the same copies by index.
    """

    segments: tuple[tuple[str, int], ...]
    runs: list[list[int]]
    groups: list[tuple[int, np.ndarray, np.ndarray]]

    def copy(self, sources: Sequence[np.ndarray], target: np.ndarray) -> None:
        """Fill `target` (rows, *shape) from each segment's rows (rows, *shape)."""
        # Indexing copies twice and costs per group; slices copy once and cost per run.
        if target[0].nbytes >= 512 or len(self.runs) <= RUNS_PER_GROUP * len(self.groups):
            for segment, begin, place, length in self.runs:
                target[place : place + length] = sources[segment][begin : begin + length]
        else:
            for segment, rows, places in self.groups:
                target[places] = sources[segment].take(rows, axis=0, mode="clip")


def plan_of(items: Items, draw: Draw, *, lead: int, window: int) -> Plan:
    """The plan for windows of one table: lead rows, then the window, item after item."""
    rows = np.maximum(items.starts[:, None] + np.arange(-lead, window), 0)  # row 0 is repeated in front of it
    rows_per_segment = np.array(draw.rows_per_segment, np.int64)[items.writers][:, None]
    index, offset = np.divmod(rows, rows_per_segment)
    local = (items.slots[:, None] * rows_per_segment + offset).ravel()
    keys, segment = _segments(items, draw, index)
    return Plan(keys, _runs(segment, local, lead + window), _groups(segment, local, len(keys)))


def _segments(items: Items, draw: Draw, index: np.ndarray) -> tuple[tuple[tuple[str, int], ...], np.ndarray]:
    """The distinct segments, and each row's place among them."""
    span = int(index.max()) + 1
    codes, segment = np.unique(items.writers[:, None] * span + index, return_inverse=True)
    keys = tuple((draw.writers[code // span], code % span) for code in codes.tolist())
    return keys, segment.ravel()


def _runs(segment: np.ndarray, local: np.ndarray, length: int) -> list[list[int]]:
    """Stretches of rows that follow one another in one segment and in the batch."""
    breaks = (np.diff(segment, prepend=-1) != 0) | (np.diff(local, prepend=-2) != 1)
    begins = np.flatnonzero(breaks)
    lengths = np.diff(begins, append=len(local))
    return np.stack([segment[begins], local[begins], begins, lengths], axis=1).tolist()


def _groups(segment: np.ndarray, local: np.ndarray, count: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    order = np.argsort(segment, kind="stable")
    bounds = np.searchsorted(segment[order], np.arange(count + 1)).tolist()
    places = [order[begin:end] for begin, end in pairwise(bounds)]
    return [(number, local[rows], rows) for number, rows in enumerate(places)]
