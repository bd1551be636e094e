"""Windowing: turns the rows that streams grow by into the windows of one table."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from replay.sources import Ledger, Sources
from replay.table import Table

Changes = Mapping[str, tuple[tuple[int, int], ...]]
"""By column, the (slot, row) whose value differs from the row before."""


@dataclass(frozen=True, eq=False)
class Windows:
    """New windows of one writer's streams; arrays (n,).

    Args:
        sources: numbers of their sources.
        starts: first row of each, not counting the lead.
        floors: rows before it are not read; the lead repeats this row instead.
    """

    sources: np.ndarray
    starts: np.ndarray
    floors: np.ndarray


@dataclass(frozen=True, eq=False)
class Chosen:
    """Windows that were drawn; arrays (n,).

    Args:
        windows: their sources, starts and floors.
        ids: see `Holding`.
        probabilities: with which each was chosen, per pick.
    """

    windows: Windows
    ids: np.ndarray
    probabilities: np.ndarray


class Windowing:
    """Where the next window of every stream of one writer begins, in one table.

    Attributes:
        next: (slots,) first row of the next window; rows before it that no window wants may go.
        dropped: rows whose decision this table will never hand out.
    """

    def __init__(self, table: Table, ledger: Ledger, *, version: int) -> None:
        self._table, self._ledger = table, ledger
        # Row 0 is repeated as its lead; a source of which only later rows are known has none to repeat.
        self.next = np.where(ledger.first == 0, 0, ledger.first + table.lead)
        self.floors = ledger.first.copy()
        self._begun = self.next.copy()  # first row of the first window since the last change
        self.dropped = 0
        self._versions = np.full(len(self.next), version, np.int64)  # of the oldest row of the unfinished window
        self._changes: list[list[int]] = [[] for _ in self.next]

    def extend(self, begins: np.ndarray, *, version: int, changes: Changes) -> Windows:
        """The windows that became complete, now that rows up to the ledger's ends are readable.

        Args:
            begins: (slots,) first new row of each.
            version: that decided them.
            changes: by column the (slot, row) at which it has another value than in the row before.
        """
        self._drop_mixed(begins, version)
        fresh = self.next >= begins
        self._versions[fresh] = version
        windows = self._split(changes) if self._table.within else self._run(self._last_starts())
        self._versions[self.next >= begins] = version
        return windows

    def retire(self, slots: np.ndarray) -> None:
        """Give up on windows that are not complete."""
        self.dropped += self._left(slots, self._ledger.end[slots] - 1)
        self.next[slots] = np.maximum(self.next[slots], self._ledger.end[slots])

    def needed(self) -> np.ndarray:
        """(slots,) first row that a later window may read, with its lead."""
        return np.maximum(self.floors, self.next - self._table.lead)

    def _drop_mixed(self, begins: np.ndarray, version: int) -> None:
        """Drop an unfinished window's rows that rows of this version may not join."""
        lag = self._table.max_lag
        if lag is not None:
            mixed = (self.next < begins) & (version - self._versions > lag) & self._ledger.owns
            self.dropped += int((begins - self.next)[mixed].sum())
            self.next[mixed] = begins[mixed]

    def _last_starts(self) -> np.ndarray:
        """(slots,) last start whose window is readable and whose owned decisions are made."""
        owned = self._table.owned_rows if self._table.reads_once else 1
        return np.minimum(self._ledger.end - self._table.window, self._ledger.end - 1 - owned)

    def _run(self, last: np.ndarray) -> Windows:
        """Windows of all streams from `next` up to the last possible starts."""
        stride = self._table.stride_rows
        counts = np.maximum(0, (last - self.next) // stride + 1) * self._ledger.owns
        slots = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(counts) - counts
        starts = self.next[slots] + (np.arange(len(slots)) - before[slots]) * stride
        self.next += counts * stride
        return Windows(self._ledger.births[slots], starts, self.floors[slots])

    def _split(self, changes: Changes) -> Windows:
        """Windows that lie between changes of the columns that must not change inside one.

        Only complete rows count: of an open row it is not known yet whether it belongs to what was before.
        """
        for column in self._table.within:
            for slot, row in changes.get(column, ()):
                self._changes[slot].append(row)
        parts = [self._between(slot) for slot in np.flatnonzero(self._ledger.owns).tolist()]
        runs = [part for slot_parts in parts for part in slot_parts if len(part[1])]
        if not runs:
            return Windows(*(np.zeros(0, np.int64) for _ in range(3)))
        counts = [len(starts) for _, starts, _ in runs]
        slots = np.repeat([slot for slot, _, _ in runs], counts)
        starts, floors = np.concatenate([starts for _, starts, _ in runs]), np.repeat([f for *_, f in runs], counts)
        return Windows(self._ledger.births[slots], starts, floors)

    def _between(self, slot: int) -> list[tuple[int, np.ndarray, int]]:
        """(slot, starts, floor) for each run of a stream's rows without a change."""
        known, runs = int(self._ledger.end[slot]) - 1, []
        # A commit whose answer was lost is followed by one that tells the same rows again.
        for row in sorted({row for row in self._changes[slot] if row > self.floors[slot]}):
            runs.append(self._starts_before(slot, row))
            self.dropped += self._left(slot, row)
            self.next[slot] = self.floors[slot] = self._begun[slot] = row
        self._changes[slot] = []
        runs.append(self._starts_before(slot, known))
        return runs

    def _left(self, slots: np.ndarray | int, ends: np.ndarray | int) -> int:
        """How many rows before these ends of slots were in no window."""
        beyond = max(0, self._table.owned_rows - self._table.stride_rows)
        covered = self.next[slots] + beyond * (self.next[slots] > self._begun[slots])
        return int(np.maximum(0, ends - covered).sum())

    def _starts_before(self, slot: int, end: int) -> tuple[int, np.ndarray, int]:
        stride, begin = self._table.stride_rows, int(self.next[slot])
        starts = np.arange(begin, end - self._table.window + 1, stride)
        self.next[slot] = begin + len(starts) * stride
        return slot, starts, int(self.floors[slot])


def refer(sources: Sources, table: Table, windows: Windows, change: int) -> None:
    """Add or drop the references of a table's windows to the segments that they read."""
    if len(windows.starts):
        low = np.maximum(windows.floors, windows.starts - table.lead)
        sources.refer(windows.sources, low, windows.starts + (table.window - 1), change)
