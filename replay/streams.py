"""The streams of a shard: who writes each of them, and where every table's next windows begin."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from replay.messages import Commit
from replay.sources import Ledger, Sources
from replay.table import Table
from replay.windowing import Windowing, Windows


class Streams:
    """Which writer owns each stream now, and what each table makes of the rows that it adds.

    Args:
        tables: of the shard.
        sources: of the shard.
    """

    def __init__(self, tables: Mapping[str, Table], sources: Sources) -> None:
        self._tables, self._sources = dict(tables), sources
        self._windowings: dict[int, dict[str, Windowing]] = {}  # by ledger and table
        self._owners: dict[int, tuple[Ledger, int]] = {}
        self._dropped: dict[str, int] = {}  # by table, of writers that are gone

    def welcome(self, ledger: Ledger, *, version: int) -> None:
        """Let a new writer take its streams over from earlier ones."""
        self._windowings[ledger.place] = {
            name: Windowing(table, ledger, version=version) for name, table in self._tables.items()
        }
        for slot, stream in enumerate(ledger.streams.tolist()):
            former, place = self._owners.get(stream, (ledger, slot))
            if former is not ledger and former.owns[place]:
                self.retire(former, np.array([place]))
            self._owners[stream] = ledger, slot

    def adopt(self, ledger: Ledger) -> None:
        """Let in a writer who is dead, of whose rows no window is made any more."""
        self.welcome(ledger, version=0)
        for windowing in self._windowings[ledger.place].values():
            windowing.next = ledger.end.copy()
        self.retire(ledger, np.arange(len(ledger.streams)))

    def retire(self, ledger: Ledger, slots: np.ndarray) -> None:
        """Nobody adds to these streams of a writer any more; their unfinished windows are dropped."""
        for windowing in self._windowings[ledger.place].values():
            windowing.retire(slots)
        ledger.owns[slots] = False

    def give_up(self, streams: Iterable[int]) -> None:
        """Whoever writes these streams is dead."""
        for ledger, slot in [self._owners[stream] for stream in streams if stream in self._owners]:
            if ledger.owns[slot]:
                self.retire(ledger, np.array([slot]))

    def retire_all(self, ledgers: Mapping[str, Ledger]) -> None:
        """All writers are dead."""
        for ledger in ledgers.values():
            self.retire(ledger, np.flatnonzero(ledger.owns))
        self._owners = {}

    def extend(self, ledger: Ledger, commit: Commit, add: Callable[[str, Windows], None]) -> int:
        """Take note of a commit's rows; `add` gets each table's new windows.

        Returns:
            Rows that became complete.
        """
        begins = ledger.end - 1
        ends = np.where(ledger.owns, np.maximum(ledger.end, np.array(commit.ends)), ledger.end)
        self._sources.extend(ledger, ends)
        for name, windowing in self._windowings[ledger.place].items():
            add(name, windowing.extend(begins, version=commit.version, changes=commit.changes))
        return int((ledger.end - 1 - begins).sum())

    def dropped(self, table: str) -> int:
        """Rows whose decision a table will never hand out."""
        return sum(windowings[table].dropped for windowings in self._windowings.values()) + self._dropped.get(table, 0)

    def floors(self) -> dict[int, np.ndarray]:
        """By ledger, the first row of each slot that a later window may still need."""
        for place in [place for place in self._windowings if self._sources.ledgers[place] is None]:
            gone = self._windowings.pop(place)
            for name, windowing in gone.items():
                self._dropped[name] = self._dropped.get(name, 0) + windowing.dropped
        return {
            place: np.min([windowing.needed() for windowing in windowings.values()], axis=0)
            for place, windowings in self._windowings.items()
        }
