"""Draws: windows that a shard has chosen for one learner step, until every rank is done."""

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np

from replay.messages import Draw, Items
from replay.sources import Sources
from replay.table import Table
from replay.windowing import Chosen, refer


class Formed:
    """The windows of one draw over all ranks; their segments stay until it is dropped.

    What a window keeps of its mask is fixed here, so that an open row that is completed while
    learners read it cannot change what they see.
    """

    def __init__(self, tables: Mapping[str, Table], chosen: Mapping[str, Chosen], sources: Sources) -> None:
        self._tables, self._windows = dict(tables), {name: drawn.windows for name, drawn in chosen.items()}
        self.items = {name: _items(tables[name], drawn, sources) for name, drawn in chosen.items()}
        self._refer(sources, 1)

    def drop(self, sources: Sources) -> None:
        """Let go of the segments."""
        self._refer(sources, -1)

    def _refer(self, sources: Sources, change: int) -> None:
        for name, windows in self._windows.items():
            refer(sources, self._tables[name], windows, change)

    def for_rank(self, rank: int, ranks: int, sources: Sources) -> Draw:
        """The rank-th of `ranks` contiguous slices of every table's windows."""
        items = {name: _slice(drawn, rank, ranks) if ranks > 1 else drawn for name, drawn in self.items.items()}
        # Sets, because np.unique of so few numbers costs three times as much.
        places = sorted({place for drawn in items.values() for place in drawn.writers.tolist()})
        ledgers = [sources.ledger(place) for place in places]
        rows = np.array([ledger.rows_per_segment for ledger in ledgers])
        segments: dict[tuple[str, int], str] = {}
        for name, drawn in items.items():
            writers = np.searchsorted(places, drawn.writers)
            items[name] = replace(drawn, writers=writers)
            for place, index in self._touched(name, items[name], rows[writers]):
                ledger = ledgers[place]
                segments[ledger.name, index] = ledger.segments[index].path
        return Draw(items, tuple(ledger.name for ledger in ledgers), tuple(rows.tolist()), segments)

    def _touched(self, name: str, items: Items, rows: np.ndarray) -> list[tuple[int, int]]:
        """(place of the writer, segment index) of every segment that the items read."""
        table = self._tables[name]
        first = np.maximum(items.floors, items.starts - table.lead) // rows
        last = (items.starts + (table.window - 1)) // rows
        spans = set(zip(items.writers.tolist(), first.tolist(), last.tolist(), strict=True))
        return sorted({(place, index) for place, low, high in spans for index in range(low, high + 1)})


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
    streams, places, slots, _ = sources.facts[windows.sources].T.copy()
    ends = np.empty(len(slots), np.int64)
    for place in np.unique(places).tolist():
        mine = places == place
        ends[mine] = sources.ledger(place).end[slots[mine]]
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
