"""Rows as Parquet files, which everything that reads tables reads.

A shaped column is a fixed-size binary of each row's raw bytes, little-endian, C order: Parquet's lists would be read
and written about ten times slower. Which dtype and shape it has is in the metadata of the field, "dtype" and "shape",
and once more in the metadata of the file, "contrail".
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from replay.pieces import PLACE, ExchangeError, Piece, decoded, from_json, piece_of, to_json
from replay.schema import Column, Schema

KEY = b"contrail"
"""Key of the file's metadata under which its schema is."""

BATCH_BYTES = 32 << 20
"""Bytes of rows in a row group, and about as many are read at once."""


def write_parquet(batches: Iterable[pa.RecordBatch], path: Path) -> int:
    """Write rows to a file; how many.

    Args:
        batches: writer, stream, row and a schema's columns.
        path: of the file.
    """
    writer: pq.ParquetWriter | None = None
    rows = 0
    try:
        for batch in batches:
            schema = Schema.from_arrow(pa.schema([field for field in batch.schema if field.name not in PLACE]))
            if writer is None:
                writer = _writer(path, schema)
            size = max(1, BATCH_BYTES // schema.row_bytes)
            for start in range(0, len(batch), size):
                writer.write_batch(_encoded(batch.slice(start, size), schema, writer.schema))
            rows += len(batch)
    finally:
        if writer is not None:
            writer.close()
    return rows


def read_parquet(path: Path, declared: Mapping[str, Column], ignore: tuple[str, ...] = ()) -> Iterator[Piece]:
    """The rows of a file, a piece at a time.

    Args:
        path: of the file.
        declared: columns, in place of what the file says itself.
        ignore: columns to leave out.

    Raises:
        ExchangeError: it cannot be read, or a column of it cannot be one of a row.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name not in ignore]
            declared = {**_own_columns(file.schema_arrow, str(path)), **declared}
            first = 0
            for batch in file.iter_batches(_rows_at_once(file.metadata), columns=names):
                yield piece_of(batch, str(path), first, declared)
                first += len(batch)
    except pa.ArrowException as error:
        raise ExchangeError(f"{path} cannot be read as Parquet: {error}") from error


def _writer(path: Path, schema: Schema) -> pq.ParquetWriter:
    place = [pa.field("writer", pa.string(), False), *(pa.field(name, pa.int64(), False) for name in PLACE[1:])]
    fields = [pa.field(name, _kind(c), False, metadata=_described(c)) for name, c in schema.columns.items()]
    scalars = [name for name, column in schema.columns.items() if not column.shape]
    return pq.ParquetWriter(
        path,
        pa.schema([*place, *fields], metadata={KEY: json.dumps(to_json(schema.columns))}),
        compression="zstd",
        use_dictionary=["writer"],
        # The least and the greatest frame would be stored with every group, and help nobody.
        write_statistics=[*PLACE, *scalars],
    )


def _kind(column: Column) -> pa.DataType:
    return pa.binary(column.row_bytes) if column.shape else column.arrow()


def _described(column: Column) -> dict[str, str] | None:
    return {"dtype": column.dtype, "shape": json.dumps(column.shape)} if column.shape else None


def _encoded(batch: pa.RecordBatch, schema: Schema, target: pa.Schema) -> pa.RecordBatch:
    place = [batch.column("writer").cast(pa.string()), batch.column("stream"), batch.column("row")]
    columns = [_raw(batch.column(name), name, column) for name, column in schema.columns.items()]
    return pa.record_batch([*place, *columns], schema=target)


def _raw(array: pa.Array, name: str, column: Column) -> pa.Array:
    if not column.shape:
        return array
    values = np.ascontiguousarray(decoded(array, column, name))
    return pa.Array.from_buffers(_kind(column), len(array), [None, pa.py_buffer(values)])


def _own_columns(schema: pa.Schema, source: str) -> dict[str, Column]:
    """What the file says of its columns."""
    own = (schema.metadata or {}).get(KEY)
    return from_json(json.loads(own), f"{source}: its metadata") if own else {}


def _rows_at_once(facts: pq.FileMetaData) -> int:
    groups = [facts.row_group(index).total_byte_size for index in range(facts.num_row_groups)]
    return int(np.clip(BATCH_BYTES * facts.num_rows // max(1, sum(groups)), 1, 1 << 20))
