"""A shard: the index of one part of the store.

Who waits for whom: nobody waits inside a shard; every method answers at once. An actor that is
told `admits() == False` waits for learners to draw; a learner that gets `NotReady` waits for
actors to commit. One process owns a shard and calls it from one thread.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from replay.checks import CommitLost, check_batches, check_continues, check_watched
from replay.draws import Draws, Formed, formed
from replay.gate import Gate
from replay.holding import Holding
from replay.limiter import check_ratio
from replay.messages import Commit, Draw, NotReady
from replay.room import check_room, crowded, shrink
from replay.segments import Archive, Segments
from replay.sources import Ledger, Sources
from replay.streams import Streams
from replay.table import Table, TableError

__all__ = ["CommitLost", "Shard"]


class Shard:
    """The index of one part of the store: which rows exist, and which windows each table holds.

    It never touches a row. Draws are formed once per step for all ranks, of all tables or none,
    and stay pinned until every rank is done with them. A segment is released as soon as
    no table, no pinned draw and no lead can read it.

    What it does depends on nothing but its arguments and the calls that change it, in their order. `record` is told of
    each just before it takes effect; whoever repeats them has the same shard (`replay.recovery`).

    Args:
        tables: by name.
        shards: how many shards there are; each answers 1 / shards of every batch.
        index: which of them this one is.
        seed: of the random selections, which depend on (seed, index, table, step) only.
        max_bytes: of live segments. Beyond it windows leave the tables that remove any, oldest first, and then actors
            wait. None: no bound.
        archive: takes sealed segments, and says when they may go; None: they go when nothing reads them.

    Attributes:
        record: takes (name of a method, arguments).
        told: hears of every draw that is formed: the shard, the step, the draw.
        drawn: steps of which draws were formed.

    Raises:
        TableError: there is no table, or a batch does not divide by the shards.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        *,
        shards: int = 1,
        index: int = 0,
        seed: int,
        max_bytes: int | None = None,
        archive: Archive | None = None,
    ) -> None:
        if not tables:
            raise TableError("a shard needs at least one table; got none")
        self.tables, self.shards, self.index = dict(tables), shards, index
        self._seed, self.max_bytes = seed, max_bytes
        check_batches(self.tables, shards=shards, ranks=1)
        self.sources = Sources()
        self.segments = Segments(self.sources, archive)
        self.gate = Gate(self.segments)
        self.holdings = {
            name: Holding(table, self.sources, shards=shards, index=index) for name, table in self.tables.items()
        }
        self.record: Callable[[tuple], None] = _nobody
        self.told: Callable[[Shard, int, Formed], None] = _nobody
        self.drawn = 0
        self.streams = Streams(self.tables, self.sources)
        self._draws = Draws()
        self._counts = {"rows_committed": 0, "rows_dropped": 0}

    def commit(self, commit: Commit) -> bool:
        """Take note of new rows; a repeated commit is ignored and counted.

        A writer that is new to the shard takes its streams over, unless a `fence` keeps it out: windows that the
        earlier writer completed stay, its unfinished ones are dropped, and what it still sends is ignored.

        Returns:
            Whether it was new.

        Raises:
            CommitLost: rows between the writer's previous commit and this one are unknown.
            StoreFull: `max_bytes` do not hold the windows that a draw waits for.
            TableError: windows stay within a column that the writer does not watch.
        """
        if not self.gate.passes(commit.writer, commit.streams, commit.sequence):
            self.segments.refuse(commit)
            return False
        ledger = self.segments.ledgers.get(commit.writer)
        if ledger is None:
            check_watched(self.tables, commit)
        check_continues(ledger, commit, all_known=self.record is not _nobody)
        self.segments.collect()
        self.record(("commit", commit))
        if ledger is None:
            ledger = self.segments.welcome(commit)
            self.streams.welcome(ledger, version=commit.version)
        self._note(ledger, commit)
        return True

    def admits(self) -> bool:
        """Whether actors may write on: no table is full of windows to be read, or ahead of its ratio.

        Ahead of a ratio, and beyond `max_bytes`, they wait only while learners can draw: else all would wait.
        """
        holdings = self.holdings.values()
        if any(holding.full() for holding in holdings):
            return False
        ahead = crowded(self.segments, holdings, self.max_bytes) or any(holding.limiter.ahead() for holding in holdings)
        return not ahead or bool(self.missing(self.drawn))

    def missing(self, step: int) -> str:
        """Why draw `step` cannot be answered yet; "" when it can."""
        if step not in self._draws.formed:
            for name, holding in self.holdings.items():
                if text := holding.missing():
                    return f'table "{name}" {text}'
        return ""

    def draw(self, step: int, rank: int = 0, ranks: int = 1, *, done: int | None = None, further: int = 0) -> Draw:
        """Rank's share of draw `step`; asking again gives the same answer.

        Args:
            step: which draw.
            rank: of the asking reader among `ranks`.
            ranks: how many share every draw.
            done: the rank has read all draws before this one: their rows may go once all ranks have. None: `step`.
            further: draws that are asked for next, before anything else happens; together they cost less.

        Raises:
            NotReady: a table holds too few windows; nothing was drawn from any.
            TableError: a batch does not divide by shards * ranks.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank is {rank}: wanted 0 to {ranks - 1}")
        check_batches(self.tables, shards=self.shards, ranks=ranks)
        if (before := self._draws.read(step if done is None else done, rank, ranks)) is not None:
            self.finish(before)
        if step not in self._draws.formed:
            if missing := self.missing(step):
                raise NotReady(missing)
            count = 1 + further * all(table.steady for table in self.tables.values())
            self.form(*(each for each in range(step, step + count) if each not in self._draws.formed))
        return self._draws.formed[step].for_rank(rank, ranks, self.sources)

    def form(self, *steps: int) -> None:
        """Choose the windows of a draw, for which all tables must be ready; of several if tables are steady."""
        self.segments.collect()
        self.record(("form", *steps))
        chosen = {}
        for name, holding in self.holdings.items():
            holding.settle()
            seeds = (self._seed, self.index, zlib.crc32(name.encode()))  # Python's hash differs in every process
            chosen[name] = holding.draw([np.random.default_rng([*seeds, step]) for step in steps])
        self._draws.formed |= formed(steps, self.tables, chosen, self.sources)
        for name, holding in self.holdings.items():
            holding.leave(chosen[name])
        self.drawn = max(self.drawn, steps[-1] + 1)
        self._release_freed()
        for step in steps:
            self.told(self, step, self._draws.formed[step])

    def finish(self, before: int) -> None:
        """Drop the draws before a step: every rank has read them."""
        self.record(("finish", before))
        self._draws.drop(before, self.sources)
        self._release_freed()

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        """Set priorities of windows by their ids, (n,) each; ids whose window has left are counted.

        Raises:
            TableError: there is no such table.
            ValueError: a priority is negative, not finite or too large.
        """
        holding = self._holding(table)
        ids, priorities = np.asarray(ids, np.int64), np.asarray(priorities, np.float64)
        holding.check(priorities)
        self.record(("prioritise", table, ids, priorities))
        holding.prioritise(ids, priorities)

    def limit(self, table: str, limits: Mapping[str, Any]) -> None:
        """Change a table's `min_items`, `samples_per_insert` or `tolerance` from now on.

        Raises:
            TableError: there is no such table or field, or a number is out of range.
        """
        holding = self._holding(table)
        changed = holding.table.with_limits(limits)
        check_ratio(changed)
        self.record(("limit", table, limits))
        self.tables[table] = holding.table = changed
        holding.limiter.change(changed, shards=self.shards, held=holding.held)

    def retire(self, writer: str) -> None:
        """Give up a writer that is dead and not replaced: its unfinished windows are dropped, its rows may go."""
        ledger = self.segments.ledgers.get(writer)
        if ledger is not None:
            self.record(("retire", writer))
            self.streams.retire(ledger, np.flatnonzero(ledger.owns))
            self.segments.release(self.streams.floors())

    def fence(self, streams: Sequence[int], writer: str) -> int:
        """Give streams whose writer died to one other alone: what is still under way from anybody else is ignored.

        Complete windows stay, unfinished ones are dropped. Asking again gives the same answer.

        Args:
            streams: ids, all that the dead one wrote.
            writer: name of the one to come, which no writer had before; it may begin again as `writer.1` and so on.

        Returns:
            How many commits of each stream were taken since this start of the run: where the writer has to go on.

        Raises:
            ValueError: the streams were not committed equally often; nothing was done.
        """
        commits = self.gate.commits(streams, writer)
        self.record(("fence", [*streams], writer))
        self.streams.give_up(self.gate.fence(streams, writer))
        self.segments.release(self.streams.floors())
        return commits

    def statistics(self) -> dict[str, float]:
        """Counts since the start, and what is held now, by name."""
        numbers = {n: float(number) for n, number in (self._counts | self.gate.counts).items()}
        for name, holding in self.holdings.items():
            numbers |= {f"{name}/{count}": float(value) for count, value in holding.counts.items()}
            numbers |= {f"{name}/windows": float(holding.held), f"{name}/balance": holding.limiter.balance}
            numbers[f"{name}/rows_dropped"] = float(self.streams.dropped(name))
        return numbers | self.segments.statistics()

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Counts and edges by "table/priority" and "table/age": see `Holding.histograms`."""
        found = {name: holding.histograms() for name, holding in self.holdings.items()}
        return {f"{name}/{what}": histogram for name, each in found.items() for what, histogram in each.items()}

    def close(self) -> None:
        """Give every segment that was committed here to the archive, or remove it."""
        self.segments.close()
        self._draws = Draws()

    def __getstate__(self) -> dict[str, Any]:
        """All but those who listen: they belong to a process."""
        return self.__dict__ | {"record": _nobody, "told": _nobody}

    def begin_anew(self) -> None:
        """After all writers and learners have died: nobody adds to what is there, and nobody is owed a draw.

        What was to be read once belongs to the past and is dropped; the rest stays as it was.
        """
        for name, holding in self.holdings.items():
            holding.settle()
            if holding.table.read_limit:
                self._counts["rows_dropped"] += holding.held * self.tables[name].stride_rows
                holding.remove(holding.live()[0])
        self._draws.drop(None, self.sources)
        self.streams.retire_all(self.segments.ledgers)
        self.gate.begin_anew()
        self.segments.release(self.streams.floors())

    def _holding(self, table: str) -> Holding:
        if table not in self.holdings:
            raise TableError(f'there is no table "{table}": the store has {", ".join(self.holdings)}')
        return self.holdings[table]

    def _note(self, ledger: Ledger, commit: Commit) -> None:
        self.gate.note(ledger, commit)
        ledger.sequence = commit.sequence
        rows = self.streams.extend(ledger, commit, lambda name, new: self.holdings[name].add(new, commit.version))
        self._counts["rows_committed"] += rows
        self.segments.note(ledger, commit)
        self.segments.release(self.streams.floors())
        if self.max_bytes is not None:
            shrink(self.segments, self.holdings.values(), self.streams, self.max_bytes)
            if self.segments.live_bytes > self.max_bytes and not self._draws.formed:
                check_room(self.segments.live_bytes, self.max_bytes, self.missing(self.drawn))

    def _release_freed(self) -> None:
        """Release segments, if one can have lost its last reference; where streams moved on, others may go, too."""
        if self.sources.freed:
            self.segments.release(self.streams.floors())


def _nobody(*told: object) -> None:
    """Where nobody listens."""
