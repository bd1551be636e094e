"""Selectors: which windows a table holds in one shard, and which of them leave or are drawn.

A selector sees sources grow row by row; it knows neither files nor learner steps. Another way of
choosing (prioritised, say) is another class with the same methods.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol, runtime_checkable

import numpy as np

from replay.table import Table


@dataclass(eq=False)
class Source:
    """The rows of one stream that one writer wrote.

    Args:
        stream: its id.
        writer: who writes it.
        slot: its place in that writer's segments.
        birth: counts the sources of a shard.
        first: first row that this shard knows.
        end: one past the open row.
        retired: another writer has taken the stream over; no row will be added.
    """

    stream: int
    writer: str
    slot: int
    birth: int
    first: int
    end: int
    retired: bool = False

    @property
    def order(self) -> tuple[int, int]:
        """Sorts sources the same way whatever order their commits arrived in."""
        return self.stream, self.birth


Window = tuple[Source, int]
"""A source and the window's first row."""


@runtime_checkable
class Selector(Protocol):
    """The windows of one table in one shard.

    Attributes:
        held: windows that could be drawn now.
        dropped: rows whose decision this table will never hand out.
    """

    held: int
    dropped: int

    def extend(self, source: Source, begin: int, *, version: int) -> None:
        """Take note of rows [begin, source.end) of the source, decided by `version`."""

    def retire(self, source: Source) -> None:
        """Give up on windows of the source that are not complete."""

    def take(self, count: int, rng: np.random.Generator) -> list[Window]:
        """Draw windows, at most `held`, all different."""

    def needs(self, source: Source) -> int | None:
        """First row of the source that a later draw may still read; None: no row at all."""


def share(windows: int, shards: int) -> int:
    """One shard's part of a number of windows, rounded up."""
    return -(-windows // shards)


def selector_of(table: Table, *, shards: int) -> Selector:
    """The selector that serves a table's share in one of `shards` shards."""
    return Fifo(table) if table.reads_once else Uniform(table, capacity=share(table.capacity_windows, shards))


def first_start(source: Source, lead: int) -> int:
    """Start of a source's first window: row 0 is repeated as its lead, later rows have none."""
    return source.first if source.first == 0 else source.first + lead


def complete(table: Table, source: Source, start: int) -> bool:
    """Whether the window's rows are readable and the decisions that it owns are made."""
    owned = table.owned_rows if table.reads_once else 1
    return start + table.window <= source.end and start + owned < source.end


@dataclass(eq=False)
class _Queue:
    """A source's windows in a fifo table: complete ones, and where the next will start."""

    next: int
    version: int
    starts: deque[int] = field(default_factory=deque)


class Fifo:
    """Every window once, in the order in which they became complete."""

    def __init__(self, table: Table) -> None:
        self.held = self.dropped = 0
        self._table = table
        self._order: deque[Source] = deque()
        self._queues: dict[Source, _Queue] = {}

    def extend(self, source: Source, begin: int, *, version: int) -> None:
        """Queue the windows that these rows complete; drop those that they may not join."""
        queue = self._queues.get(source)
        if queue is None:
            queue = self._queues[source] = _Queue(first_start(source, self._table.lead), version)
        self._drop_mixed(queue, begin, version)
        if queue.next >= begin:
            queue.version = version
        while complete(self._table, source, queue.next):
            queue.starts.append(queue.next)
            self._order.append(source)
            queue.next += self._table.stride_rows
            self.held += 1
        if queue.next >= begin:
            queue.version = version

    def _drop_mixed(self, queue: _Queue, begin: int, version: int) -> None:
        """Drop a window's rows that rows of this version may not join."""
        lag = self._table.max_lag
        if lag is not None and queue.next < begin and version - queue.version > lag:
            self.dropped += begin - queue.next
            queue.next = begin

    def retire(self, source: Source) -> None:
        """Count what is left of an unfinished window as dropped."""
        queue = self._queues.get(source)
        if queue is not None:
            self.dropped += max(0, source.end - 1 - queue.next)
            self._forget_if_empty(source, queue)

    def take(self, count: int, rng: np.random.Generator) -> list[Window]:
        """The oldest windows, ordered by stream and start."""
        windows = []
        for _ in range(count):
            source = self._order.popleft()
            queue = self._queues[source]
            windows.append((source, queue.starts.popleft()))
            self._forget_if_empty(source, queue)
        self.held -= count
        # Not by arrival: the same windows in the same order, whichever actor was faster.
        return sorted(windows, key=lambda window: (*window[0].order, window[1]))

    def needs(self, source: Source) -> int | None:
        """First row of the oldest undrawn window with its lead."""
        queue = self._queues.get(source)
        if queue is None:
            return None
        start = queue.starts[0] if queue.starts else queue.next
        return max(0, start - self._table.lead)

    def _forget_if_empty(self, source: Source, queue: _Queue) -> None:
        if source.retired and not queue.starts:
            del self._queues[source]


@dataclass(eq=False)
class _Range:
    """A source's windows in a uniform table: `count` of them from `start`."""

    start: int
    version: int
    count: int = 0


@dataclass(order=True)
class _Span:
    """Windows of one source and version; the smallest leaves first."""

    version: int
    order: tuple[int, int]
    start: int
    count: int = field(compare=False)
    source: Source = field(compare=False)


class Uniform:
    """The newest windows, each as likely as the others.

    Old is a low version, then a low stream: not early arrival, so that what is held depends on
    what was written and not on who was faster.
    """

    def __init__(self, table: Table, *, capacity: int) -> None:
        self.held = self.dropped = 0
        self._table, self._capacity = table, capacity
        self._ranges: dict[Source, _Range] = {}
        self._spans: list[_Span] = []

    def extend(self, source: Source, begin: int, *, version: int) -> None:
        """Add the windows that these rows complete; the oldest leave when there are too many."""
        known = self._ranges.get(source)
        if known is None:
            known = self._ranges[source] = _Range(first_start(source, self._table.lead), version)
        known.version = max(known.version, version)  # a source's oldest windows must leave first
        stride = self._table.stride_rows
        start = known.start + known.count * stride
        last = min(source.end - self._table.window, source.end - 2)
        added = max(0, (last - start) // stride + 1)
        if added:
            heapq.heappush(self._spans, _Span(known.version, source.order, start, added, source))
            known.count += added
            self.held += added
        self._evict()

    def _evict(self) -> None:
        while self.held > self._capacity:
            span = self._spans[0]
            leaving = min(span.count, self.held - self._capacity)
            known = self._ranges[span.source]
            known.start += leaving * self._table.stride_rows
            known.count -= leaving
            span.count -= leaving
            span.start += leaving * self._table.stride_rows
            self.held -= leaving
            if not span.count:
                heapq.heappop(self._spans)
                self._forget_if_empty(span.source)

    def retire(self, source: Source) -> None:
        """Keep complete windows until they are old; forget a source that has none."""
        if source in self._ranges:
            self._forget_if_empty(source)

    def take(self, count: int, rng: np.random.Generator) -> list[Window]:
        """Windows at random, all different."""
        sources = sorted(self._ranges, key=lambda source: source.order)
        bounds = list(accumulate((self._ranges[source].count for source in sources), initial=0))
        chosen = rng.choice(self.held, count, replace=False)
        places = np.searchsorted(bounds, chosen, side="right") - 1
        return [
            self._window(sources[place], int(index) - bounds[place])
            for place, index in zip(places, chosen, strict=True)
        ]

    def _window(self, source: Source, index: int) -> Window:
        return source, self._ranges[source].start + index * self._table.stride_rows

    def needs(self, source: Source) -> int | None:
        """First row of the oldest window with its lead."""
        known = self._ranges.get(source)
        return None if known is None else max(0, known.start - self._table.lead)

    def _forget_if_empty(self, source: Source) -> None:
        if source.retired and not self._ranges[source].count:
            del self._ranges[source]
