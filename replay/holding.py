"""A holding: the windows that one table holds in one shard, each in a slot of its own."""

from collections.abc import Sequence

import numpy as np

from replay.even import Even
from replay.histogram import histogram
from replay.ids import MOST_SLOTS, generation_of, ids_of, slot_of
from replay.limiter import Limiter
from replay.selection import selector_of
from replay.sources import Sources
from replay.sum_tree import LARGEST_MASS, in_range
from replay.table import Table, TableError
from replay.windowing import Chosen, Windows, refer

FEW = 8192
"""A table of so few windows may let as many again wait for the next draw, a larger one an eighth of its own. Beyond
that they are taken in in order of arrival: memory is bounded."""

COLUMNS = ("source", "start", "floor", "version", "reads", "generation")
_SOURCE, _START, _FLOOR, _VERSION, _READS, _GENERATION = range(len(COLUMNS))


class Holding:
    """The windows that a table holds in one shard.

    New windows wait until the next draw, and are then taken in by version, row and stream, so that what is held, and in
    which slot, depends on what was written and not on which actor was faster.

    Args:
        table: what it serves.
        sources: of the shard; told which segments the windows refer to.
        shards: how many shards share the table.
        index: of this shard.

    Attributes:
        held: windows that could be drawn, those that wait to be taken in among them.
        counts: windows inserted, drawn, evicted (removed to make room), priorities set, and those that came too late.
    """

    def __init__(self, table: Table, sources: Sources, *, shards: int, index: int) -> None:
        self.table, self.limiter = table, Limiter(table, shards=shards)
        self.held = 0
        self.counts = dict.fromkeys(("inserted", "drawn", "evicted", "priorities_set", "priorities_stale"), 0)
        self._sources, self._shards, self._index = sources, shards, index
        if self.capacity > MOST_SLOTS:
            raise TableError(f"capacity {self.capacity:,} windows of one shard: it holds {MOST_SLOTS:,} at most")
        self._select = selector_of(table.select, exponent=table.exponent)
        self._removal = None if table.removal in ("wait", table.select) else selector_of(table.removal)
        self._columns = np.zeros((256, len(COLUMNS)), np.int64)
        self._priorities = np.zeros(256)
        self._used = 0  # slots that ever had a tenant
        self._free: list[np.ndarray] = []
        self._waiting: list[tuple[Windows, int]] = []
        self._waiting_count = 0
        self._even = Even(table.per_stream) if table.per_stream else None
        self._highest = 1.0

    @property
    def capacity(self) -> int:
        """Windows that this shard may hold."""
        return -(-self.table.capacity_windows // self._shards)

    @property
    def share(self) -> int:
        """Windows of one draw."""
        return self.table.batch_windows // self._shards

    def full(self) -> bool:
        """Whether actors must wait for learners to take windows out."""
        return self.table.removal == "wait" and self.held >= self.capacity

    def missing(self) -> str:
        """Why the next draw cannot be answered yet; "" when it can."""
        if missing := self.limiter.missing(self.share, self.held):
            return missing
        if self._even is not None and self._even.available < self.share:
            return f"has {self._even.available} of {self.share} windows, at most {self._even.most} of each stream"
        return ""

    def add(self, windows: Windows, version: int) -> None:
        """Take note of new windows, decided by `version`."""
        count = len(windows.starts)
        if not count:
            return
        self._refer(windows, 1)
        self._waiting.append((windows, version))
        self._waiting_count += count
        self.held += count
        self.counts["inserted"] += count
        self.limiter.inserted(count)
        self._make_room()
        if self._waiting_count > max(min(self.capacity, FEW), self.capacity // 8):
            self.settle()

    def _make_room(self) -> None:
        """Let the oldest leave for those that wait: they will have to, and their segments can be used again sooner.

        In parts of a fixed size, so that what is in which slot later does not depend on how commits came.
        """
        part = max(64, self.capacity // 64)
        while (
            self.table.removal == "fifo"
            and self.held - self.capacity >= part
            and self.held - self._waiting_count >= part
        ):
            self._evict(part)

    def settle(self) -> None:
        """Take in what waits; where that is too much, windows leave."""
        if not self._waiting:
            return
        windows = Windows(*(np.concatenate([getattr(w, n) for w, _ in self._waiting]) for n in _WINDOW))
        versions = np.repeat([version for _, version in self._waiting], [len(w.starts) for w, _ in self._waiting])
        self._waiting, self._waiting_count = [], 0
        streams, _, _, lives = self._sources.facts[windows.sources].T
        order = np.lexsort((streams, windows.starts, lives, versions))
        self._insert(Windows(*(getattr(windows, name)[order] for name in _WINDOW)), versions[order])
        excess = self.held - self.capacity
        if excess > 0 and self.table.removal != "wait":
            self._evict(excess)

    def insert(self, columns: np.ndarray, priorities: np.ndarray) -> None:
        """Take in windows of an earlier store: `COLUMNS` (n, 6), whose sources are this one's, and priorities (n,)."""
        order = self._order(columns)
        source, start, floor, versions, reads, _ = columns[order].T
        windows, priorities = Windows(source, start, floor), priorities[order]
        count = len(windows.starts)
        self._refer(windows, 1)
        self.limiter.inserted(max(0, min(count, self.limiter.least - self.held)))  # what is more was there before
        self.held += count
        self._insert(windows, versions, priorities=priorities, reads=reads)
        self.counts["inserted"] += count

    def draw(self, rngs: Sequence[np.random.Generator]) -> Chosen:
        """This shard's windows of a batch, or of several one after another if the table is `steady`: one for each rng.

        The caller refers to their segments before anything else happens.
        """
        bounded = self.table.read_limit > 0
        choices = [self._choose(rng) for rng in rngs]
        slots, probabilities = (np.concatenate(part) for part in zip(*choices, strict=True))
        if self.table.select == "fifo":
            # Not by arrival: the same windows are in the same order, whichever actor was faster.
            streams, _, _, lives = self._sources.facts[self._columns[slots, _SOURCE]].T
            order = np.lexsort((self._columns[slots, _START], lives, streams))
            slots, probabilities = slots[order], probabilities[order]
        tenants = self._columns.take(slots, axis=0)
        ids = ids_of(slots, tenants[:, _GENERATION], self._index)
        chosen = Chosen(_windows_of(tenants), ids, probabilities / self._shards)
        self.counts["drawn"] += len(slots)
        self.limiter.drawn(len(slots))
        if bounded:
            self._columns[slots, _READS] += 1
        return chosen

    def _choose(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The slots of a draw, and the chance with which each was chosen."""
        if self._even is None:
            return self._select.choose(self.share, rng, distinct=self.table.read_limit > 0)
        slots, probabilities = self._select.choose(self.held, rng, distinct=True)
        kept = self._even.first(self._sources.facts[self._columns[slots, _SOURCE], 0], self.share)
        return slots[kept], probabilities[kept]

    def leave(self, chosen: Chosen) -> None:
        """Let those of a draw go that were read often enough."""
        if self.table.read_limit:
            slots = slot_of(chosen.ids)
            self.remove(slots[self._columns[slots, _READS] >= self.table.read_limit])

    def check(self, priorities: np.ndarray) -> None:
        """Refuse what cannot be a priority here.

        Raises:
            ValueError: one is negative, not finite, or too large to be summed; names it.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            masses = np.maximum(priorities, priorities**self.table.exponent)
        if not (in_range(priorities) and in_range(masses)):
            good = (priorities >= 0) & (masses <= LARGEST_MASS)
            wanted = f"wanted finite numbers from 0, and at most {LARGEST_MASS:g} to the power of the exponent"
            raise ValueError(f"a priority is {priorities[~good][0]}: {wanted}")

    def prioritise(self, ids: np.ndarray, priorities: np.ndarray) -> None:
        """Set priorities; those of windows that have left are counted and change nothing."""
        slots, generations = slot_of(ids), generation_of(ids)
        tenants = self._columns.take(slots, axis=0, mode="clip")
        known = (slots < self._used) & (tenants[:, _GENERATION] == generations)
        if not known.all():
            self.counts["priorities_stale"] += len(ids) - int(known.sum())
            slots, priorities = slots[known], priorities[known]
        self.counts["priorities_set"] += len(slots)
        self._priorities[slots] = priorities
        self._highest = max(self._highest, float(priorities.max(initial=0.0)))
        for selector in self._selectors():
            selector.update(slots, priorities)

    def shrink(self) -> bool:
        """Let the sixteenth of all windows leave that would be next; whether any could."""
        self.settle()
        count = min(max(1, self.held // 16), self.held - self.limiter.least)
        if count > 0:
            self._evict(count)
        return count > 0

    def live(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The windows held, without those that wait to be taken in, in the order in which they came in.

        Returns:
            Their slots (n,), `COLUMNS` (n, 6) and priorities (n,). Order is by version, row and stream.
        """
        slots = np.flatnonzero(self._columns[: self._used, _READS] >= 0)
        columns = self._columns[slots]
        order = self._order(columns)
        return slots[order], columns[order], self._priorities[slots[order]]

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Counts (n,) and edges (n + 1,) of the windows' priorities, and of their ages: versions behind the newest."""
        slots, columns, priorities = self.live()
        if not len(slots):
            return {}
        ages = columns[:, _VERSION].max() - columns[:, _VERSION]
        return {"priority": histogram(priorities, 30), "age": histogram(ages, 30)}

    def remove(self, slots: np.ndarray) -> None:
        """Let the windows in these slots leave."""
        if not len(slots):
            return
        for selector in self._selectors():
            selector.remove(slots)
        self._refer(_windows_of(self._columns.take(slots, axis=0)), -1)
        self._columns[slots, _READS] = -1
        self._columns[slots, _GENERATION] += 1
        self._free.append(slots)
        self.held -= len(slots)

    def _order(self, columns: np.ndarray) -> np.ndarray:
        """By version, row and stream."""
        streams, _, _, lives = self._sources.facts[columns[:, _SOURCE]].T
        return np.lexsort((streams, columns[:, _START], lives, columns[:, _VERSION]))

    def _selectors(self) -> list:
        return [self._select] if self._removal is None else [self._select, self._removal]

    def _insert(
        self,
        windows: Windows,
        versions: np.ndarray,
        *,
        priorities: np.ndarray | None = None,
        reads: np.ndarray | None = None,
    ) -> None:
        slots = self._take_slots(len(windows.starts))
        tenant = (windows.sources, windows.starts, windows.floors, versions, 0 if reads is None else reads)
        for column, values in enumerate(tenant):
            self._columns[slots, column] = values
        # What no learner has seen yet is as urgent as the most urgent.
        self._priorities[slots] = self._highest if priorities is None else priorities
        self._highest = max(self._highest, float(self._priorities[slots].max(initial=0.0)))
        for selector in self._selectors():
            selector.insert(slots, self._priorities[slots])

    def _take_slots(self, count: int) -> np.ndarray:
        """Free slots, those used before first."""
        parts: list[np.ndarray] = []
        while count and self._free:
            block = self._free.pop()
            if len(block) > count:
                self._free.append(block[count:])
                block = block[:count]
            parts.append(block)
            count -= len(block)
        while self._used + count > len(self._columns):
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)])
            self._priorities = np.concatenate([self._priorities, np.zeros_like(self._priorities)])
        parts.append(np.arange(self._used, self._used + count))
        self._used += count
        return np.concatenate(parts)

    def _evict(self, count: int) -> None:
        removal = self._removal or self._select
        # A fixed generator: nothing but the table's own history decides who leaves.
        rng = np.random.default_rng([self._index, self.counts["evicted"]])
        slots, _ = removal.choose(count, rng, distinct=True)
        self.counts["evicted"] += count
        self.remove(slots)

    def _refer(self, windows: Windows, change: int) -> None:
        refer(self._sources, self.table, windows, change)
        if self._even is not None:
            self._even.count(self._sources.facts[windows.sources, 0], change)


def _windows_of(columns: np.ndarray) -> Windows:
    """The windows in `COLUMNS` (n, 6)."""
    return Windows(*columns.T[[_SOURCE, _START, _FLOOR]])


_WINDOW = ("sources", "starts", "floors")
