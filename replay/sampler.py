"""A sampler: gathers the rows that shards' draws refer to into batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from replay.gather import Plan, plan_of
from replay.messages import Draw, Items
from replay.schema import Schema, SchemaError
from replay.segment import Segment
from replay.table import Table, TableError

Arrays = dict[str, np.ndarray]


@runtime_checkable
class ShardLike(Protocol):
    """What a sampler asks of a shard, wherever that is."""

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Rank's share of draw `step`."""


class Sampler:
    """One rank's reader of all shards: batches of whole windows, copied out of the segments.

    Args:
        schema: of the rows.
        tables: the shards' tables.
        shards: in the order in which their items are concatenated.
        rank: of this reader among `ranks`.
        ranks: how many readers share each batch.
        allocate: (shape, dtype) -> array, called once per column; a learner passes one that gives
            pinned memory.

    Raises:
        TableError: a batch does not divide by shards * ranks.
    """

    def __init__(
        self,
        schema: Schema,
        tables: Mapping[str, Table],
        shards: Sequence[ShardLike],
        *,
        rank: int = 0,
        ranks: int = 1,
        allocate: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.empty,
    ) -> None:
        for name, table in tables.items():
            if table.batch % (len(shards) * ranks):
                wanted = f"{len(shards)} shards * {ranks} ranks"
                raise TableError(f'table "{name}": batch {table.batch} does not divide by {wanted}')
        self._schema, self._tables, self._shards = schema, dict(tables), tuple(shards)
        self._rank, self._ranks = rank, ranks
        self._mapped: tuple[dict[tuple[str, int], Segment], ...] = tuple({} for _ in shards)
        self._batches = {name: self._allocate(table, allocate) for name, table in self._tables.items()}

    def read(self, step: int) -> dict[str, Arrays]:
        """This rank's part of batch `step`, by table and column: (B, lead + window, *shape).

        Beside the columns, "stream" and "start" (B,) say where each window came from; start does
        not count the lead. Lead rows have mask 0, and so have rows that belong to a read-once
        table's next window; lead rows in front of row 0 repeat row 0.

        The arrays are filled again by the next read.

        Raises:
            NotReady: a shard cannot answer yet; reading the same step again is safe.
            SchemaError: a segment's columns are not the sampler's.
        """
        draws = [shard.draw(step, self._rank, self._ranks) for shard in self._shards]
        for place, draw in enumerate(draws):
            self._map(draw, self._mapped[place])
            for name in self._tables:
                self._fill(name, place, draw)
        return self._batches

    def close(self) -> None:
        """Drop every mapping; the batches stay readable."""
        for mapped in self._mapped:
            mapped.clear()

    def _allocate(self, table: Table, allocate: Callable[[tuple[int, ...], np.dtype], np.ndarray]) -> Arrays:
        items, rows = table.batch // self._ranks, table.lead + table.window
        batch = {
            name: allocate((items, rows, *column.shape), np.dtype(column.dtype))
            for name, column in self._schema.columns.items()
        }
        return {**batch, **{name: allocate((items,), np.dtype(np.int64)) for name in ("stream", "start")}}

    def _map(self, draw: Draw, mapped: dict[tuple[str, int], Segment]) -> None:
        for writer, index in list(mapped):
            if index < draw.oldest.get(writer, index + 1):
                del mapped[writer, index]
        for key, path in draw.segments.items():
            if key not in mapped:
                mapped[key] = segment = Segment.open(path)
                if segment.schema != self._schema:
                    raise SchemaError(_difference(path, segment.schema, self._schema))

    def _fill(self, name: str, place: int, draw: Draw) -> None:
        table, items = self._tables[name], draw.items[name]
        count = table.batch // (self._ranks * len(self._shards))
        part = slice(place * count, (place + 1) * count)
        batch = {column: values[part] for column, values in self._batches[name].items()}
        plan = plan_of(items, draw, lead=table.lead, window=table.window)
        for column in self._schema.columns:
            self._gather(plan, column, batch[column], self._mapped[place])
        _close_mask(batch["mask"], items, table.lead)
        batch["stream"][:], batch["start"][:] = items.streams, items.starts

    def _gather(self, plan: Plan, column: str, target: np.ndarray, mapped: Mapping[tuple[str, int], Segment]) -> None:
        shape = self._schema.columns[column].shape
        sources = [mapped[key].columns[column].reshape(-1, *shape) for key in plan.segments]
        plan.copy(sources, target.reshape(-1, *shape))


def _close_mask(mask: np.ndarray, items: Items, lead: int) -> None:
    """Zero the mask outside the rows that the window keeps."""
    place = np.arange(mask.shape[1]) - lead
    mask[(place < 0) | (place >= items.kept[:, None])] = 0


def _difference(path: str, got: Schema, wanted: Schema) -> str:
    names = sorted(got.columns.keys() | wanted.columns.keys())
    for name in names:
        theirs, ours = got.columns.get(name), wanted.columns.get(name)
        if theirs != ours:
            return f'{path}: column "{name}" is {theirs or "missing"}, wanted {ours or "none"}'
    return f"{path}: columns differ"
