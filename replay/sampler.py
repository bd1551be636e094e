"""A sampler: gathers the rows that shards' draws refer to into batches."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import numpy as np

from replay.gather import Columns, compiling, plan_of
from replay.ids import shard_of
from replay.mapped import UNPACKED_BYTES, Mapped
from replay.messages import Draw, Items
from replay.schema import Schema
from replay.table import Table, TableError

Arrays = dict[str, np.ndarray]
Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]

ADDED = {"stream": np.int64, "start": np.int64, "item": np.int64, "probability": np.float64}
"""Columns of a batch that come from the draw, an entry for each window."""


@runtime_checkable
class ShardLike(Protocol):
    """What a sampler asks of a shard whose segments it can map."""

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Rank's share of draw `step`."""

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        """Set priorities of windows."""


@runtime_checkable
class FarShard(Protocol):
    """What a sampler asks of a shard on another machine, which gathers the rows itself."""

    def rows(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, Arrays]:
        """Rank's share of draw `step`, by table and column, as `Sampler.read` returns it."""

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        """Set priorities of windows."""


class Sampler:
    """One rank's reader of all shards: batches of whole windows, copied out of the segments.

    Args:
        schema: of the rows.
        tables: the shards' tables.
        shards: in the order in which their items are concatenated.
        rank: of this reader among `ranks`.
        ranks: how many readers share each batch.
        allocate: (shape, dtype) -> array, called once per column and buffer; a learner passes one that gives
            pinned memory.
        buffers: batches that stay valid: the newest ones.
        unpacked_bytes: of archived segments that are kept in memory, where they must be unpacked to be read.

    Attributes:
        moments: when the stages of the last read ended, by `perf_counter`: "wait" for the shards' answers, "gather".

    Raises:
        TableError: a batch does not divide by shards * ranks.
    """

    def __init__(
        self,
        schema: Schema,
        tables: Mapping[str, Table],
        shards: Sequence[ShardLike | FarShard],
        *,
        rank: int = 0,
        ranks: int = 1,
        allocate: Allocate = np.empty,
        buffers: int = 1,
        unpacked_bytes: int = UNPACKED_BYTES,
    ) -> None:
        for name, table in tables.items():
            if table.batch % (len(shards) * ranks):
                wanted = f"{len(shards)} shards * {ranks} ranks"
                raise TableError(f'table "{name}": batch {table.batch} does not divide by {wanted}')
        self._schema, self._tables, self._shards = schema, dict(tables), tuple(shards)
        self._rank, self._ranks = rank, ranks
        self._mapped = tuple(Mapped(schema, unpacked_bytes // len(shards)) for _ in shards)
        self._buffers = [
            {name: self._allocate(table, allocate) for name, table in self._tables.items()} for _ in range(buffers)
        ]
        self._parts = [
            {
                name: [self._part(batch, name, place) for place in range(len(self._shards))]
                for name, batch in buffer.items()
            }
            for buffer in self._buffers
        ]
        # Found once: to ask each time what a shard is takes longer than to ask the shard.
        self._answers = tuple(shard.draw if isinstance(shard, ShardLike) else shard.rows for shard in shards)
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="gather") if len(os.sched_getaffinity(0)) > 1 else None
        compiling()  # while others still fill the store
        self._reads = 0
        self.moments: Mapping[str, float] = {}

    def read(self, step: int) -> dict[str, Arrays]:
        """This rank's part of batch `step`, by table and column: (B, lead + window, *shape).

        Beside the columns there are, (B,) each: "stream" and "start", where a window came from (start does
        not count the lead); "item", its id, by which priorities are sent back; "probability", with which it was
        chosen. Lead rows have mask 0, and so have rows that belong to a read-once
        table's next window; lead rows in front of a stream's first row, or of a run that windows stay within, repeat
        that row. Where a table's arity is not 1, all these have it as their second dimension.

        The arrays are filled again by the next read, or the one after as many as there are buffers.

        Raises:
            NotReady: a shard cannot answer yet; reading the same step again is safe.
            SchemaError: a segment's columns are not the sampler's.
        """
        parts = self._parts[self._reads % len(self._buffers)]
        found = [answer(step, self._rank, self._ranks) for answer in self._answers]
        answered = perf_counter()
        for place, part in enumerate(found):
            rows = self._mapped[place].rows(part.segments) if isinstance(part, Draw) else {}
            for name in self._tables:
                target = parts[name][place]
                if isinstance(part, Draw):
                    self._fill(name, part, target, rows)
                else:
                    for column, values in part[name].items():
                        target.arrays[column][:] = values
        self._reads += 1
        self.moments = {"wait": answered, "gather": perf_counter()}
        return self._buffers[(self._reads - 1) % len(self._buffers)]

    def prioritise(self, table: str, items: np.ndarray, priorities: np.ndarray) -> None:
        """Send windows' priorities to the shards that hold them; nobody waits for it.

        Args:
            table: of the windows.
            items: (n,) ids from a batch's "item".
            priorities: (n,) finite, at least 0.
        """
        places = shard_of(items)
        for place, shard in enumerate(self._shards):
            mine = places == place
            if mine.any():
                shard.prioritise(table, items[mine], priorities[mine])

    def close(self) -> None:
        """Drop every mapping; the batches stay readable."""
        for mapped in self._mapped:
            mapped.close()
        if self._helper is not None:
            self._helper.shutdown()

    def _allocate(self, table: Table, allocate: Allocate) -> Arrays:
        items = (table.batch // self._ranks, *((table.arity,) if table.arity > 1 else ()))
        rows = table.lead + table.window
        batch = {
            name: allocate((*items, rows, *column.shape), np.dtype(column.dtype))
            for name, column in self._schema.columns.items()
        }
        return {**batch, **{name: allocate(items, np.dtype(kind)) for name, kind in ADDED.items()}}

    def _part(self, batch: Arrays, name: str, place: int) -> "_Part":
        """The part of a table's batch that a shard fills."""
        table = self._tables[name]
        count = table.batch // (self._ranks * len(self._shards))
        arrays = {column: values[place * count : (place + 1) * count] for column, values in batch.items()}
        rows = count * table.arity * (table.lead + table.window)
        columns = self._schema.columns.items()
        return _Part(
            arrays,
            Columns({name: arrays[name].reshape(rows, *column.shape) for name, column in columns}),
            arrays["mask"].reshape(-1, table.lead + table.window),
            tuple(arrays[added].reshape(-1) for added in ADDED),
        )

    def _fill(self, name: str, draw: Draw, target: "_Part", rows: Mapping[tuple[str, int], Columns]) -> None:
        table, items = self._tables[name], draw.items[name]
        plan = plan_of(items, draw, lead=table.lead, window=table.window)
        plan.copy([rows[key] for key in plan.segments], target.rows, self._helper)
        _close_mask(target.mask, items, table.lead)
        added = (items.streams, items.starts, items.ids, items.probabilities)
        for place, values in zip(target.added, added, strict=True):
            place[:] = values


@dataclass(frozen=True, eq=False)
class _Part:
    """What one shard fills of a table's batch, in several views.

    Args:
        arrays: as they are handed out.
        rows: the schema's columns, one row after another.
        mask: (windows, lead + window).
        added: (windows,) each, in the order of `ADDED`.
    """

    arrays: Arrays
    rows: Columns
    mask: np.ndarray
    added: tuple[np.ndarray, ...]


class Gatherer:
    """Gathers for learners on other machines, beside a shard whose segments it can map.

    Args:
        schema: of the rows.
        tables: the shard's.
        shard: one of `shards`.
        shards: how many shards share every batch.
    """

    def __init__(self, schema: Schema, tables: Mapping[str, Table], shard: ShardLike, *, shards: int) -> None:
        self._schema, self._shard = schema, shard
        self._tables = {name: replace(table, batch=table.batch // shards) for name, table in tables.items()}
        self._samplers: dict[tuple[int, int], Sampler] = {}

    def rows(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, Arrays]:
        """The shard's part of the rank's batch; filled again by the rank's next one.

        Raises:
            NotReady: the shard cannot answer yet.
        """
        if (rank, ranks) not in self._samplers:
            sampler = Sampler(self._schema, self._tables, [self._shard], rank=rank, ranks=ranks)
            self._samplers[rank, ranks] = sampler
        return self._samplers[rank, ranks].read(step)


class Prefetch:
    """Reads the next batch while the learner is at the present one, in a thread.

    Only for runs whose actors may be ahead: where they wait for the learner's next version, there is nothing to fetch.
    A batch is drawn one learner step early, before the priorities that this step sends.

    Args:
        sampler: with at least two buffers.
        then: what the thread makes of every batch that it read, such as a copy on a GPU; None: nothing.

    Attributes:
        moments: as of `Sampler`, of the last batch that was handed out, and when the "copy" ended, where there is one.
            They may lie before the call that handed it out.
    """

    def __init__(self, sampler: Sampler, then: Callable[[dict[str, Arrays]], Any] | None = None) -> None:
        self._sampler, self._then = sampler, then
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._coming: tuple[int, Future[Any]] | None = None
        self.moments: Mapping[str, float] = {}

    def read(self, step: int) -> Any:
        """As `Sampler.read`, or what `then` made of it; errors of reading ahead are raised by the read they concern."""
        coming, self._coming = self._coming, None  # what failed is tried again
        if coming is None or coming[0] != step:
            coming = (step, self._thread.submit(self._fetch, step))
        batches, self.moments = coming[1].result()
        self._coming = (step + 1, self._thread.submit(self._fetch, step + 1))
        return batches

    def _fetch(self, step: int) -> tuple[Any, Mapping[str, float]]:
        batches = self._sampler.read(step)
        if self._then is None:
            return batches, self._sampler.moments
        moved = self._then(batches)
        return moved, {**self._sampler.moments, "copy": perf_counter()}

    def prioritise(self, table: str, items: np.ndarray, priorities: np.ndarray) -> None:
        """As `Sampler.prioritise`."""
        self._sampler.prioritise(table, items, priorities)

    def close(self) -> None:
        """Stop reading ahead; waits for a read in progress."""
        self._thread.shutdown(cancel_futures=True)
        self._sampler.close()


def _close_mask(mask: np.ndarray, items: Items, lead: int) -> None:
    """Zero the mask outside the rows that the window keeps."""
    if not lead and items.kept.min() >= mask.shape[1]:
        return
    place = np.arange(mask.shape[1]) - lead
    mask[(place < 0) | (place >= items.kept[:, None])] = 0
