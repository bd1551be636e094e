"""Recovery: a shard that died becomes itself again from its journal; a store that died becomes new shards."""

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from replay import journal
from replay.draw_log import DrawLog
from replay.draws import Formed
from replay.holding import COLUMNS, Holding
from replay.journal import Journal, JournalError
from replay.messages import SegmentInfo
from replay.segment import StoreFull
from replay.shard import Shard
from replay.sources import Ledger
from replay.table import LIMITS, Table, TableError

LARGE = 32 * 2**20
"""Bytes of records after which a journal is begun again from a snapshot."""


class Recorder:
    """Writes what changes a shard into a journal, so that `recover` finds it, and what it hands out into a log.

    Args:
        shard: from now on every change is written down before it takes effect.
        target: its journal.
        draws: its log of draws; None: none is kept.
    """

    def __init__(self, shard: Shard, target: Journal, draws: DrawLog | None = None) -> None:
        self._shard, self._journal, self._draws = shard, target, draws
        self._begun = target.begun(shard.drawn)
        self.snapshot()
        shard.record = target.append

    def snapshot(self) -> None:
        """Begin the journal again from here."""
        if self._draws is not None:  # draws before a snapshot are not formed again by those who start from it
            self._draws.flush()
        self._journal.begin(self._shard.drawn, pickle.dumps(self._shard, protocol=5))

    def tidy(self) -> None:
        """Begin again if the journal has grown long; between two calls of the shard."""
        if self._journal.size > max(LARGE, 2 * self._journal.snapshot_size):
            self.snapshot()

    def forget(self, before: int) -> None:
        """Remove what nobody needs who goes back to `before` draws or further ahead."""
        if self._draws is not None:  # what a checkpoint knows of is in the log
            self._draws.flush()
        self._journal.forget(before)
        if before >= self._begun:  # then nobody goes back to an earlier start of the run either
            self._journal.forget_earlier_starts()

    def close(self) -> None:
        """Close the files."""
        if self._draws is not None:
            self._draws.close()
        self._journal.close()


def recover(
    folder: Path, name: str, *, until: int | None = None, told: Callable[[Shard, int, Formed], None] | None = None
) -> Shard | None:
    """The shard of a journal. It leaves all files as they are until `shard.segments.thaw`.

    Args:
        folder: of the journal.
        name: of the shard.
        until: how it was right after so many draws had been formed; None: at the end.
        told: hears once more of the draws that were formed since the last snapshot.

    Returns:
        The shard; None: there is no journal that goes back so far.

    Raises:
        JournalError: the journal is damaged, or of another version.
    """
    found = journal.replayed(folder, name, until)
    if found is None:
        return None
    step, state, records = found
    try:
        shard: Shard = pickle.loads(state)
    except Exception as error:
        raise JournalError(
            f"{folder}/{name}: its snapshot cannot be read ({error!r}): another version wrote it"
        ) from error
    shard.told = told or shard.told
    if until is None or step < until:
        for method, *arguments in records:
            # Draws that were formed together are the same one after another.
            _repeat(shard, method, [step for step in arguments if until is None or method != "form" or step < until])
            if until is not None and shard.drawn >= until:
                break
    return shard


def _repeat(shard: Shard, method: str, arguments: list) -> None:
    try:
        getattr(shard, method)(*arguments)
    except StoreFull:
        return  # it was raised then, too, after the rows had been noted


def reopened(
    formers: Sequence[Shard],
    tables: Mapping[str, Table],
    *,
    shards: int,
    seed: int,
    locate: Callable[[SegmentInfo], SegmentInfo | None],
) -> list[Shard]:
    """New shards with what the shards of a dead store held, however many those were.

    Windows that were to be read once are dropped: they belong to a past that is not continued. Where the number of
    shards stays the same, ids stay too; else windows get new ones, with priorities and reads as they were.

    Args:
        formers: from `recover`.
        tables: of the new store.
        shards: of the new store.
        seed: of the new store.
        locate: where a segment is now; None: its rows are lost, and windows of them leave.

    Raises:
        TableError: a table reads other windows than it did; names it.
    """
    for former in formers:
        _check_tables(former, tables)
        former.begin_anew()
    if len(formers) == shards and all(set(former.tables) == set(tables) for former in formers):
        for former in formers:
            _relocate(former, locate)
        return list(formers)
    fresh = [Shard(tables, shards=shards, index=index, seed=seed) for index in range(shards)]
    _deal(formers, fresh)
    for shard in fresh:
        shard.drawn = max((former.drawn for former in formers), default=0)
        _relocate(shard, locate)
    return fresh


def _check_tables(former: Shard, tables: Mapping[str, Table]) -> None:
    """Limits may have been changed on the way; how windows are made may not."""
    for name in sorted(set(former.tables) & set(tables)):
        limits = {limit: getattr(tables[name], limit) for limit in LIMITS}
        if replace(former.tables[name], **limits) != tables[name]:
            raise TableError(f'table "{name}" was {former.tables[name]}, now it is {tables[name]}: start a new run')


def _deal(formers: Sequence[Shard], fresh: Sequence[Shard]) -> None:
    """Give each writer's rows, and every table's windows of them, to one of the new shards."""
    parts: dict[tuple[int, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    held = [{name: holding.live() for name, holding in former.holdings.items()} for former in formers]
    ledgers = [(place, ledger) for place, former in enumerate(formers) for ledger in former.segments.ledgers.values()]
    for number, (place, ledger) in enumerate(sorted(ledgers, key=lambda pair: pair[1].name)):
        target = number % len(fresh)
        adopted = _adopted(fresh[target], ledger)
        for name, (_, columns, priorities) in held[place].items():
            mine = np.isin(columns[:, 0], ledger.births)
            moved = columns[mine]
            moved[:, 0] += adopted.births[0] - ledger.births[0]
            parts.setdefault((target, name), []).append((moved, priorities[mine]))
    for (target, name), found in parts.items():
        if name in fresh[target].holdings:
            columns, priorities = (np.concatenate(each) for each in zip(*found, strict=True))
            fresh[target].holdings[name].insert(columns, priorities)


def _adopted(shard: Shard, former: Ledger) -> Ledger:
    """Another shard's writer, who is dead, as this one's; its windows are inserted next."""
    ledger = shard.segments.adopt(former)
    shard.streams.adopt(ledger)
    return ledger


def _relocate(shard: Shard, locate: Callable[[SegmentInfo], SegmentInfo | None]) -> None:
    """Point to segments where they are now; drop the windows of those that are lost."""
    for ledger in shard.segments.ledgers.values():
        found = {index: locate(segment) for index, segment in ledger.segments.items()}
        lost = np.array(sorted(index for index, segment in found.items() if segment is None), np.int64)
        for holding in shard.holdings.values() if len(lost) else ():
            _drop_lost(holding, ledger, lost)
        for index, segment in found.items():
            shard.segments.relocate(ledger, index, segment)
    shard.finish(shard.drawn)


def _drop_lost(holding: Holding, ledger: Ledger, lost: np.ndarray) -> None:
    """Drop the windows that read any of these segments of a writer; in ascending order."""
    slots, columns, _ = holding.live()
    mine = np.isin(columns[:, 0], ledger.births)
    slots, named = slots[mine], dict(zip(COLUMNS, columns[mine].T, strict=True))
    table, rows = holding.table, ledger.rows_per_segment
    low = np.maximum(named["floor"], named["start"] - table.lead) // rows
    high = (named["start"] + table.window - 1) // rows
    holding.remove(slots[np.searchsorted(lost, high, "right") > np.searchsorted(lost, low, "left")])
