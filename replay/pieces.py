"""Rows that come from elsewhere: Arrow's many ways of writing a column, as the arrays that a store holds."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from replay.schema import Column

PLACE = ("writer", "stream", "row")
"""What says where a row belongs, in front of the schema's columns."""


class ExchangeError(ValueError):
    """Rows that cannot be imported or exported: names the file, the column and the row, and what to change."""


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a file.

    Attributes:
        columns: (n, ...) each, by name; "stream" and "row", (n,), where the file has them.
        source: the file.
        first: number of the first row in the file, counted from 0.
        writer: (n,) number of each row's writer in `writers`; None: the file names none.
        writers: their names.
        declared: columns of which it is known what they are; others are guessed.
    """

    columns: dict[str, np.ndarray]
    source: str
    first: int
    writer: np.ndarray | None = None
    writers: tuple[str, ...] = ("",)
    declared: Mapping[str, Column] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(next(iter(self.columns.values())))

    def place(self, row: int) -> str:
        """How errors call a row of it."""
        return f"{self.source}, row {self.first + row}"


def piece_of(batch: pa.RecordBatch, source: str, first: int, declared: Mapping[str, Column]) -> Piece:
    """A record batch as arrays, copied only where Arrow lays the values out otherwise.

    Shaped columns may be fixed-shape tensors, lists (in lists) of one shape, or raw bytes.

    Args:
        batch: of any number of rows.
        source: the file's name for errors.
        first: number of the batch's first row in the file.
        declared: columns that are known; raw bytes may also have "dtype" and "shape" in their field's metadata.

    Raises:
        ExchangeError: a column that no row can have, or a value that is missing.
    """
    named = dict(zip(batch.schema.names, batch.columns, strict=True))
    described = {name: column for name in named if (column := _described(batch.schema.field(name), source))}
    declared = {name: column for name, column in {**described, **declared}.items() if name in named}
    for name, array in named.items():
        _refuse_nulls(array, name, source, first)
    writer = named.pop("writer", None)
    columns = {name: decoded(array, declared.get(name), f'{source}: column "{name}"') for name, array in named.items()}
    if writer is None:
        return Piece(columns, source, first, declared=declared)
    codes, names = numbered_writers(writer)
    return Piece(columns, source, first, codes, names, declared)


def by_stream(piece: Piece) -> Iterator[tuple[tuple[str, int], np.ndarray]]:
    """The streams of a piece, as (writer, stream), in order of appearance, and the numbers of their rows in it."""
    streams = piece.columns.get("stream", np.zeros(piece.rows, np.int64))
    writer = np.zeros(piece.rows, np.int64) if piece.writer is None else piece.writer
    known, place = np.unique(streams, return_inverse=True)
    _, first, inverse = np.unique(writer * len(known) + place, return_index=True, return_inverse=True)
    rows = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    for group in np.argsort(first):
        at = first[group]
        yield (piece.writers[writer[at]], int(streams[at])), rows[group]


def numbered_writers(names: pa.Array) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column of names as (n,) numbers, and the names that these stand for."""
    coded = names.cast(pa.string()).dictionary_encode()
    return coded.indices.to_numpy().astype(np.int64), tuple(map(str, coded.dictionary.to_pylist()))


def decoded(array: pa.Array, column: Column | None, where: str) -> np.ndarray:
    """The values of an Arrow array, (n, *shape), in whichever dtype they have there.

    Args:
        array: of any length but 0.
        column: what they are, where that is known; needed for raw bytes.
        where: how an error calls the column.
    """
    kind = array.type
    if array.null_count:
        raise ExchangeError(f"{where} has empty numbers in its lists")
    if isinstance(array, pa.FixedShapeTensorArray):
        return array.to_numpy_ndarray()
    if pa.types.is_dictionary(kind):
        return decoded(array.dictionary_decode(), column, where)
    if pa.types.is_boolean(kind):
        return array.cast(pa.uint8()).to_numpy()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return _from_bytes(array, column, where)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = decoded(array.flatten(), None, where)
        length = _common_length(array, where)
        return inner.reshape(len(array), length, *inner.shape[1:])
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return array.to_numpy()
    raise ExchangeError(f"{where} has Arrow type {kind}, which no row can have: leave it out, or make it numbers")


def guessed(name: str, values: np.ndarray) -> Column:
    """What a column is of which nobody says so: what it looks like.

    Only actions change: integers become int64, but several bits stay bits; those with a point become float32. That is
    how policies have them.
    """
    kind, shape = values.dtype, values.shape[1:]
    if name == "action" and kind.kind == "f":
        return Column("float32", shape)
    if name == "action" and not (shape and kind == np.uint8):
        return Column("int64", shape)
    return Column(kind.name, shape)


def converted(values: np.ndarray, name: str, column: Column, piece: Piece) -> np.ndarray:
    """A column's values in the column's own dtype.

    Fractions may be rounded to fewer digits. Nothing else may change.

    Raises:
        ExchangeError: another shape, or a number that the dtype does not have; names the row.
    """
    if values.shape[1:] != column.shape:
        raise ExchangeError(f'{piece.source}: column "{name}" has shape {values.shape[1:]}, wanted {column.shape}')
    if values.dtype == column.dtype:
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        changed = values.astype(column.dtype)
    whole = np.dtype(column.dtype).kind != "f"
    wrong = changed != values if whole else np.isinf(changed) & ~np.isinf(values)
    if wrong.any():
        row = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        value = values[row] if not column.shape else "a value"
        raise ExchangeError(f'{piece.place(row)}: column "{name}": {value} is no {column.dtype}')
    return changed


def to_json(columns: Mapping[str, Column]) -> dict[str, Any]:
    """Columns as a JSON object: {"columns": {name: {"dtype": "uint8", "shape": [84, 84]}}}."""
    return {"columns": {name: {"dtype": c.dtype, "shape": list(c.shape)} for name, c in columns.items()}}


def from_json(value: Any, source: str) -> dict[str, Column]:
    """The columns that `to_json` wrote.

    Raises:
        ExchangeError: it is none; names the source.
    """
    try:
        columns = value["columns"].items()
        return {name: Column(c["dtype"], tuple(map(int, c.get("shape", ())))) for name, c in columns}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        wanted = json.dumps(to_json({"observation": Column("uint8", (84, 84))}))
        raise ExchangeError(f"{source}: no columns can be read from it ({error}); wanted {wanted}") from error


def _described(field: pa.Field, source: str) -> Column | None:
    """What a field's metadata say."""
    facts = field.metadata or {}
    if b"dtype" not in facts or b"shape" not in facts:
        return None
    try:
        return Column(facts[b"dtype"].decode(), tuple(json.loads(facts[b"shape"])))
    except (TypeError, ValueError) as error:
        raise ExchangeError(f'{source}: column "{field.name}": its metadata cannot be read ({error})') from error


def _from_bytes(array: pa.Array, column: Column | None, where: str) -> np.ndarray:
    if column is None or not column.shape:
        raise ExchangeError(
            f"{where} is raw bytes, and nobody says of which dtype and shape: declare it (--columns), or write lists "
            "of numbers"
        )
    try:
        fixed = array.cast(pa.binary(column.row_bytes))
    except pa.ArrowInvalid as error:
        raise ExchangeError(f"{where}: {column} takes {column.row_bytes} bytes, the file has {array.type}") from error
    count = len(fixed)
    raw = np.frombuffer(fixed.buffers()[1], np.uint8, count * column.row_bytes, fixed.offset * column.row_bytes)
    return raw.view(column.dtype).reshape(count, *column.shape)


def _common_length(array: pa.Array, where: str) -> int:
    lengths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(lengths) > 1 or None in lengths:
        raise ExchangeError(f"{where} holds lists of {lengths[0]} and of {lengths[1]} entries: wanted one shape")
    return lengths[0]


def _refuse_nulls(array: pa.Array, name: str, source: str, first: int) -> None:
    if array.null_count:
        row = pc.index(pc.is_null(array), True).as_py()
        raise ExchangeError(f'{source}, row {first + row}: column "{name}" is empty')
