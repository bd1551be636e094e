"""Draws: windows that a shard has chosen for one learner step, until every rank is done."""

from collections.abc import Mapping

import numpy as np

from replay.messages import Draw, Items, SegmentInfo
from replay.selectors import Source, Window
from replay.table import Table


class Formed:
    """The windows of one draw over all ranks.

    What a window keeps of its mask is fixed here, so that an open row that is completed while
    learners read it cannot change what they see.
    """

    def __init__(self, tables: Mapping[str, Table], windows: Mapping[str, list[Window]]) -> None:
        self._tables, self._windows = tables, windows
        self._kept = {
            name: [min(tables[name].owned_rows, source.end - 1 - start) for source, start in chosen]
            for name, chosen in windows.items()
        }
        self._floors: dict[Source, int] = {}
        for name, chosen in windows.items():
            for source, start in chosen:
                row = max(0, start - tables[name].lead)
                self._floors[source] = min(row, self._floors.get(source, row))

    def needs(self, source: Source) -> int | None:
        """First row of the source that the draw reads; None: no row at all."""
        return self._floors.get(source)

    def for_rank(
        self,
        rank: int,
        ranks: int,
        *,
        rows_per_segment: Mapping[str, int],
        segments: Mapping[str, Mapping[int, SegmentInfo]],
    ) -> Draw:
        """The rank-th of `ranks` contiguous slices of every table's windows."""
        chosen = {name: _slice(windows, rank, ranks) for name, windows in self._windows.items()}
        writers = tuple(sorted({source.writer for windows in chosen.values() for source, _ in windows}))
        touched = {
            (source.writer, index)
            for name, windows in chosen.items()
            for source, start in windows
            for index in self._touched(name, start, rows_per_segment[source.writer])
        }
        return Draw(
            items={
                name: _items(windows, writers, kept=_slice(self._kept[name], rank, ranks))
                for name, windows in chosen.items()
            },
            writers=writers,
            rows_per_segment=tuple(rows_per_segment[writer] for writer in writers),
            segments={(writer, index): segments[writer][index].path for writer, index in sorted(touched)},
            oldest={writer: min(live) for writer, live in segments.items() if live},
        )

    def _touched(self, name: str, start: int, rows: int) -> range:
        table = self._tables[name]
        return range(max(0, start - table.lead) // rows, (start + table.window - 1) // rows + 1)


def _slice(values: list, rank: int, ranks: int) -> list:
    count = len(values) // ranks
    return values[rank * count : (rank + 1) * count]


def _items(windows: list[Window], writers: tuple[str, ...], *, kept: list[int]) -> Items:
    places = {writer: place for place, writer in enumerate(writers)}
    rows = [(source.stream, start, places[source.writer], source.slot) for source, start in windows]
    streams, starts, writer_places, slots = np.array(rows, np.int64).reshape(-1, 4).T.copy()
    return Items(streams, starts, writer_places, slots, np.array(kept, np.int64))
