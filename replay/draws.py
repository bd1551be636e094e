"""Draws: windows that a shard has chosen for one learner step, until every rank is done."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import numpy as np

from replay.gather import INDEX_BITS
from replay.messages import Draw, Items
from replay.sources import Sources
from replay.table import Table
from replay.windowing import Chosen


class Formed:
    """The windows of one draw over all ranks; the segments that they read stay until it is dropped.

    What a window keeps of its mask is fixed here, so that an open row that is completed while
    learners read it cannot change what they see.
    """

    def __init__(self, tables: Mapping[str, Table], items: dict[str, Items], sources: Sources) -> None:
        self._tables, self.items = dict(tables), items
        self._segments = self._touched(self.items, sources)
        sources.pin(self._segments, 1)

    def drop(self, sources: Sources) -> None:
        """Let go of the segments."""
        sources.pin(self._segments, -1)

    def for_rank(self, rank: int, ranks: int, sources: Sources) -> Draw:
        """The rank-th of `ranks` contiguous slices of every table's windows."""
        items, touched = self.items, self._segments
        if ranks > 1:
            items = {name: _slice(drawn, rank, ranks) for name, drawn in items.items()}
            touched = self._touched(items, sources)
        places = sorted({place for place, _ in touched})
        ledgers = {place: sources.ledger(place) for place in places}
        return Draw(
            {name: replace(drawn, writers=np.searchsorted(places, drawn.writers)) for name, drawn in items.items()},
            tuple(ledger.name for ledger in ledgers.values()),
            tuple(ledger.rows_per_segment for ledger in ledgers.values()),
            {(ledgers[place].name, index): ledgers[place].segments[index].path for place, index in touched},
        )

    def _touched(self, items: Mapping[str, Items], sources: Sources) -> list[tuple[int, int]]:
        """(place of the ledger, segment index) of every segment that windows read."""
        codes: set[int] = set()  # sets, because np.unique of so few numbers costs twice as much
        for name, drawn in items.items():
            table, rows = self._tables[name], sources.rows_per_segment.take(drawn.writers)
            first = np.maximum(drawn.floors, drawn.starts - table.lead) // rows
            last = (drawn.starts + (table.window - 1)) // rows
            for further in range(int((last - first).max()) + 1):
                codes.update((drawn.writers << INDEX_BITS | np.minimum(first + further, last)).tolist())
        return [(code >> INDEX_BITS, code & ((1 << INDEX_BITS) - 1)) for code in sorted(codes)]


def formed(
    steps: Sequence[int], tables: Mapping[str, Table], chosen: Mapping[str, Chosen], sources: Sources
) -> dict[int, Formed]:
    """The draws of some steps, out of all that was chosen for them, one step after another."""
    items = {name: _items(tables[name], drawn, sources) for name, drawn in chosen.items()}
    parts = [{name: _slice(drawn, place, len(steps)) for name, drawn in items.items()} for place in range(len(steps))]
    return {step: Formed(tables, part, sources) for step, part in zip(steps, parts, strict=True)}


class Draws:
    """The draws of a shard that some rank may still read, and how far each rank is."""

    def __init__(self) -> None:
        self.formed: dict[int, Formed] = {}
        self._done: dict[int, int] = {}
        self._ranks = 1

    def read(self, before: int, rank: int, ranks: int) -> int | None:
        """Take note that a rank has read all draws before a step; the step before which all can be dropped, if any."""
        if ranks != self._ranks:
            self._done, self._ranks = {}, ranks
        self._done[rank] = before
        if len(self._done) < ranks or all(step >= min(self._done.values()) for step in self.formed):
            return None
        return min(self._done.values())

    def drop(self, before: int | None, sources: Sources) -> None:
        """Let go of the draws before a step; None: of all, and of the ranks."""
        for step in [step for step in self.formed if before is None or step < before]:
            self.formed.pop(step).drop(sources)
        if before is None:
            self._done = {}


def _items(table: Table, chosen: Chosen, sources: Sources) -> Items:
    """References to windows; `writers` are places of ledgers for now."""
    windows = chosen.windows
    streams, places, slots, _ = sources.facts.take(windows.sources, axis=0).T.copy()
    ends = sources.ends.take(windows.sources)
    return Items(
        streams=streams,
        starts=windows.starts,
        writers=places,
        slots=slots,
        kept=np.minimum(table.owned_rows, ends - 1 - windows.starts),
        floors=windows.floors,
        ids=chosen.ids,
        probabilities=chosen.probabilities,
    )


def _slice(items: Items, rank: int, ranks: int) -> Items:
    count = len(items.starts) // ranks
    part = slice(rank * count, (rank + 1) * count)
    return Items(**{field.name: getattr(items, field.name)[part] for field in fields(items)})
