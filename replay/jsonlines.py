"""Rows as JSON lines: one object per row, shaped columns as lists in lists, for eyes and small data.

The first line may be an object with the only key "columns", which says what they are; without one, they are guessed
from the first rows. Numbers come back as they were: those with a point are written with all the digits they need. What
JSON has no word for is written as Python does, NaN and Infinity.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from replay.pieces import PLACE, ExchangeError, Piece, decoded, from_json, numbered_writers, to_json
from replay.schema import ROW, Column, Schema

NUMBERS = 1 << 18
"""Numbers that are turned into text, or text into numbers, at once."""

KNOWN = {**ROW, "stream": Column("int64"), "row": Column("int64")}
"""Columns that are the same in every file."""


def write_jsonlines(batches: Iterable[pa.RecordBatch], path: Path) -> int:
    """Write rows to a file, after a line that says what their columns are; how many.

    Args:
        batches: writer, stream, row and a schema's columns.
        path: of the file.
    """
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        for batch in batches:
            schema = Schema.from_arrow(pa.schema([field for field in batch.schema if field.name not in PLACE]))
            if rows == 0:
                file.write(json.dumps(to_json(schema.columns)) + "\n")
            size = max(1, NUMBERS // sum(int(np.prod(column.shape)) for column in schema.columns.values()))
            for start in range(0, len(batch), size):
                file.writelines(_lines(batch.slice(start, size), schema))
            rows += len(batch)
    return rows


def read_jsonlines(path: Path, declared: Mapping[str, Column], ignore: tuple[str, ...] = ()) -> Iterator[Piece]:
    """The rows of a file, a piece at a time.

    Args:
        path: of the file.
        declared: columns, in place of what the file says itself.
        ignore: columns to leave out.

    Raises:
        ExchangeError: a line is no object, or lacks a column, or holds what no column can have.
    """
    with path.open(encoding="utf-8") as file:
        objects = _objects(file, path)
        head = next(objects, None)
        if head is None:
            return
        if set(head) == {"columns"}:
            declared = {**from_json(head, f"{path}, line 1"), **declared}
        else:
            objects = chain([head], objects)
        first = 0
        for held in _bunches(objects):
            yield _piece(held, path, first, declared, ignore)
            first += len(held)


def _lines(batch: pa.RecordBatch, schema: Schema) -> Iterator[str]:
    columns = {name: batch.column(name).to_pylist() for name in PLACE}
    columns |= {name: decoded(batch.column(name), c, name).tolist() for name, c in schema.columns.items()}
    for values in zip(*columns.values(), strict=True):
        yield json.dumps(dict(zip(columns, values, strict=True))) + "\n"


def _objects(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    """The object in each line that is not empty."""
    for number, line in enumerate(_text(lines, path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ExchangeError(f"{path}, line {number}: {error}") from error
        if not isinstance(value, dict):
            raise ExchangeError(f"{path}, line {number}: wanted an object of columns, got {line.strip()[:40]}")
        yield value


def _text(lines: Iterable[str], path: Path) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise ExchangeError(f"{path} is no text ({error})") from error


def _bunches(objects: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many rows at a time as have a bounded number of numbers."""
    for head in objects:
        numbers = sum(np.size(value) for value in head.values())
        size = max(1, NUMBERS // max(1, numbers))
        yield [head, *islice(objects, size - 1)]


def _piece(
    held: list[dict[str, Any]], path: Path, first: int, declared: Mapping[str, Column], ignore: tuple[str, ...]
) -> Piece:
    for number, row in enumerate(held):
        if row.keys() != held[0].keys():
            other = ", ".join(sorted(row.keys() ^ held[0].keys()))
            raise ExchangeError(f"{path}, row {first + number} and row {first} do not have the same columns: {other}")
    columns = {}
    for name in [name for name in held[0] if name not in (*ignore, "writer")]:
        values = [row[name] for row in held]
        array = _array(values, declared.get(name) or KNOWN.get(name))
        if array.dtype.kind not in "iuf":
            place = f'{path}, row {first + _odd_one(values)}: column "{name}"'
            raise ExchangeError(f"{place} is no number, or has not the shape of those before it")
        columns[name] = array
    if "writer" not in held[0]:
        return Piece(columns, str(path), first, declared=declared)
    codes, writers = numbered_writers(pa.array([str(row["writer"]) for row in held], pa.string()))
    return Piece(columns, str(path), first, codes, writers, declared)


def _array(values: list[Any], column: Column | None) -> np.ndarray:
    """The values as an array: flags as uint8, whole numbers in a dtype that holds them, others float32 if unknown."""
    try:
        array = np.array(values)
    except ValueError:  # not of one shape
        return np.array(None)
    wanted = np.dtype(column.dtype if column else np.float32)
    if array.dtype.kind in "fO" and wanted.kind in "iu" and (whole := _integers(values, wanted)) is not None:
        return whole
    if array.dtype.kind == "f" and wanted.kind == "f":
        return array.astype(wanted)
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _integers(values: list[Any], wanted: np.dtype) -> np.ndarray | None:
    """Integers of which numpy makes fractions, because they are larger than int64; None: not all are integers."""
    objects = np.array(values, dtype=object)
    if not all(type(value) is int for value in objects.flat):
        return None
    try:
        return objects.astype(wanted)
    except OverflowError:
        return None


def _odd_one(values: list[Any]) -> int:
    """The first value that is no number, or not of the first one's shape."""
    shape: tuple[int, ...] | None = None
    for number, value in enumerate(values):
        try:
            array = np.array(value)
        except ValueError:
            return number
        shape = array.shape if shape is None else shape
        if array.dtype.kind not in "biuf" or array.shape != shape:
            return number
    return 0
