"""A shard: the index of one part of the store.

Who waits for whom: nobody waits inside a shard; every method answers at once. An actor that is
told `admits() == False` waits for learners to draw; a learner that gets `NotReady` waits for
actors to commit. One process owns a shard and calls it from one thread.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from replay.draws import Formed
from replay.messages import Commit, Draw, NotReady, SegmentInfo
from replay.selectors import Source, selector_of, share
from replay.table import Table, TableError


class CommitLost(ValueError):
    """A commit that does not continue where its writer's previous one ended."""


@dataclass(eq=False)
class _Ledger:
    """What a shard knows of one writer."""

    name: str
    rows_per_segment: int
    sources: tuple[Source, ...]
    sequence: int = -1
    segments: dict[int, SegmentInfo] = field(default_factory=dict)


class Shard:
    """The index of one part of the store: which rows exist, and which windows each table holds.

    It never touches a row. Draws are formed once per step for all ranks, of all tables or none,
    and stay pinned until every rank has asked for a later step. A segment is unlinked as soon as
    no table, no pinned draw and no lead can read it.

    Args:
        tables: by name.
        shards: how many shards there are; each answers 1 / shards of every batch.
        index: which of them this one is.
        seed: of the random selections, which depend on (seed, index, table, step) only.

    Raises:
        TableError: there is no table, or a batch does not divide by the shards.
    """

    def __init__(self, tables: Mapping[str, Table], *, shards: int = 1, index: int = 0, seed: int) -> None:
        if not tables:
            raise TableError("a shard needs at least one table; got none")
        self._tables, self._shards, self._index, self._seed = dict(tables), shards, index, seed
        self._check_batches(ranks=1)
        self._selectors = {name: selector_of(table, shards=shards) for name, table in self._tables.items()}
        self._ledgers: dict[str, _Ledger] = {}
        self._owners: dict[int, Source] = {}
        self._gone: set[str] = set()
        self._draws: dict[int, Formed] = {}
        self._asked: dict[int, int] = {}
        self._ranks = 1
        self._births = 0
        self._counts = {"rows_committed": 0, "commits_repeated": 0, "commits_stale": 0}

    def commit(self, commit: Commit) -> None:
        """Take note of new rows; a repeated commit is ignored and counted.

        A writer that is new to the shard takes its streams over: windows that the earlier writer
        completed stay, its unfinished ones are dropped, and what it still sends is ignored.

        Raises:
            CommitLost: rows between the writer's previous commit and this one are unknown.
        """
        ledger = self._ledger(commit)
        if ledger is None:
            return
        for source, begin in zip(ledger.sources, commit.begins, strict=True):
            if begin >= source.end and not source.retired:
                text = f"{commit.writer}: commit {commit.sequence} begins at row {begin} of stream {source.stream}, "
                raise CommitLost(text + f"wanted at most {source.end - 1}: a commit was lost; restart this writer")
        ledger.sequence = commit.sequence
        ledger.segments.update((segment.index, segment) for segment in commit.segments)
        for source, end in zip(ledger.sources, commit.ends, strict=True):
            if not source.retired:
                self._extend(source, end, commit.version)
        self._release(ledger)

    def admits(self) -> bool:
        """Whether actors may write on: no fifo table is full."""
        return not any(
            table.reads_once and self._selectors[name].held >= share(table.capacity_windows, self._shards)
            for name, table in self._tables.items()
        )

    def missing(self, step: int) -> str:
        """Why draw `step` cannot be answered yet; "" when it can."""
        if step in self._draws:
            return ""
        for name, table in self._tables.items():
            held, wanted = self._selectors[name].held, share(table.min_windows, self._shards)
            if held < wanted:
                return f'table "{name}" holds {held} of {wanted} windows'
        return ""

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Rank's share of draw `step`; asking again gives the same answer.

        Asking for a step acknowledges this rank's earlier ones: their rows may go once all
        ranks have done so.

        Raises:
            NotReady: a table holds too few windows; nothing was drawn from any.
            TableError: a batch does not divide by shards * ranks.
        """
        if not 0 <= rank < ranks:
            raise ValueError(f"rank is {rank}: wanted 0 to {ranks - 1}")
        self._check_batches(ranks=ranks)
        self._acknowledge(step, rank, ranks)
        if step not in self._draws:
            missing = self.missing(step)
            if missing:
                raise NotReady(missing)
            self._draws[step] = self._form(step)
        rows = {name: ledger.rows_per_segment for name, ledger in self._ledgers.items()}
        paths = {name: ledger.segments for name, ledger in self._ledgers.items()}
        return self._draws[step].for_rank(rank, ranks, rows_per_segment=rows, segments=paths)

    def statistics(self) -> dict[str, float]:
        """Counts since the start, and what is held now, by name."""
        segments = [segment for ledger in self._ledgers.values() for segment in ledger.segments.values()]
        numbers: dict[str, float] = {name: float(count) for name, count in self._counts.items()}
        numbers |= {"segments": float(len(segments)), "bytes": float(sum(segment.size for segment in segments))}
        for name, selector in self._selectors.items():
            numbers[f"{name}/windows"] = float(selector.held)
            numbers[f"{name}/rows_dropped"] = float(selector.dropped)
        return numbers

    def close(self) -> None:
        """Unlink every segment that was committed here."""
        for ledger in self._ledgers.values():
            for segment in ledger.segments.values():
                Path(segment.path).unlink(missing_ok=True)
        self._gone |= set(self._ledgers)
        self._ledgers, self._owners, self._draws = {}, {}, {}

    def _check_batches(self, *, ranks: int) -> None:
        for name, table in self._tables.items():
            if table.batch % (self._shards * ranks):
                text = f'table "{name}": batch {table.batch} does not divide by {self._shards} shards * {ranks} ranks'
                raise TableError(text)

    def _ledger(self, commit: Commit) -> _Ledger | None:
        """The ledger that a commit belongs to; None when there is nothing to note."""
        known = self._ledgers.get(commit.writer)
        if known is not None and commit.sequence > known.sequence:
            return known
        if known is not None:
            self._counts["commits_repeated"] += 1
        elif commit.writer in self._gone:
            self._counts["commits_stale"] += 1
            for segment in commit.segments:
                Path(segment.path).unlink(missing_ok=True)
        else:
            return self._welcome(commit)
        return None

    def _welcome(self, commit: Commit) -> _Ledger:
        """Start the ledger of a new writer, which takes its streams from earlier ones."""
        sources = tuple(
            Source(stream, commit.writer, slot, self._births + slot, first=begin, end=begin + 1)
            for slot, (stream, begin) in enumerate(zip(commit.streams, commit.begins, strict=True))
        )
        self._births += len(sources)
        ledger = self._ledgers[commit.writer] = _Ledger(commit.writer, commit.rows_per_segment, sources)
        former = {self._owners[source.stream].writer for source in sources if source.stream in self._owners}
        for source in sources:
            self._retire(source.stream)
            self._owners[source.stream] = source
        for name in sorted(former):
            self._release(self._ledgers[name])
        return ledger

    def _retire(self, stream: int) -> None:
        source = self._owners.get(stream)
        if source is not None:
            source.retired = True
            for selector in self._selectors.values():
                selector.retire(source)

    def _extend(self, source: Source, end: int, version: int) -> None:
        begin = source.end - 1
        source.end = max(source.end, end)
        self._counts["rows_committed"] += source.end - 1 - begin
        for selector in self._selectors.values():
            selector.extend(source, begin, version=version)

    def _form(self, step: int) -> Formed:
        windows = {}
        for name, table in self._tables.items():
            # crc32, because Python's own hash of a string differs from process to process.
            rng = np.random.default_rng([self._seed, self._index, zlib.crc32(name.encode()), step])
            windows[name] = self._selectors[name].take(table.batch // self._shards, rng)
        return Formed(self._tables, windows)

    def _acknowledge(self, step: int, rank: int, ranks: int) -> None:
        if ranks != self._ranks:
            self._asked, self._ranks = {}, ranks
        self._asked[rank] = step
        oldest = min(self._asked.values()) if len(self._asked) == ranks else None
        finished = [formed for formed in self._draws if oldest is not None and formed < oldest]
        for formed in finished:
            del self._draws[formed]
        if finished:
            for ledger in list(self._ledgers.values()):
                self._release(ledger)

    def _release(self, ledger: _Ledger) -> None:
        """Unlink the writer's segments that nothing can read any more."""
        needed = [row for source in ledger.sources for row in self._needed(source)]
        oldest = min(needed) // ledger.rows_per_segment if needed else None
        for index in [index for index in ledger.segments if oldest is None or index < oldest]:
            Path(ledger.segments.pop(index).path).unlink(missing_ok=True)
        if oldest is None:
            del self._ledgers[ledger.name]
            self._gone.add(ledger.name)

    def _needed(self, source: Source) -> Iterator[int]:
        """The oldest row of the source for each of those that may still read it."""
        if not source.retired:
            yield source.end - 1
        rows = [selector.needs(source) for selector in self._selectors.values()]
        rows += [formed.needs(source) for formed in self._draws.values()]
        yield from (row for row in rows if row is not None)
