"""Archived segments: the complete rows of one segment in an Arrow file that is never changed, and how it is checked."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.columns import array_of, values_of
from replay.schema import Column, Schema, SchemaError

PLACES = ("stream", "row")
"""Columns in front of a schema's: where a row comes from, int64."""


class CorruptSegment(ValueError):
    """A file that is no segment, or whose bytes have changed: names it, and says what to do."""


@dataclass(frozen=True)
class Facts:
    """What an archived file says of itself.

    Args:
        writer: whose rows they are.
        index: of the segment among the writer's.
        streams: id of the stream in each slot.
        rows: of each stream in a whole segment.
        counts: rows of each slot that are here: the first ones of the segment.
        schema: of the rows, without stream and row.
        crc: zlib.crc32 of every column's values.
        metadata: all that the file's schema carries.
    """

    writer: str
    index: int
    streams: tuple[int, ...]
    rows: int
    counts: tuple[int, ...]
    schema: Schema
    crc: dict[str, int]
    metadata: dict[str, str]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the file."""
        return arrow_schema(self.schema, self.metadata)

    @property
    def whole(self) -> bool:
        """Whether all rows of the segment are here."""
        return sum(self.counts) == self.rows * len(self.streams)


def marked(
    schema: Schema, counts: Sequence[int], values: Mapping[str, np.ndarray], facts: Mapping[str, str]
) -> pa.Schema:
    """The Arrow schema of an archived file, with what is needed to check it.

    Args:
        schema: of the rows, without stream and row.
        counts: rows of each slot.
        values: every column's, stream and row among them.
        facts: writer, index, stream_ids, streams, rows, and whatever else is known.
    """
    crc = {name: zlib.crc32(array.reshape(-1).view(np.uint8).data) for name, array in values.items()}
    facts = {**facts, "counts": ",".join(map(str, counts)), "crc": json.dumps(crc)}
    return arrow_schema(schema, {**facts, "checksum": _checksum(schema, facts)})


def arrow_schema(schema: Schema, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """The columns of an archived file: stream and row, then those of a schema."""
    places = [pa.field(name, pa.int64(), nullable=False) for name in PLACES]
    return pa.schema([*places, *schema.arrow()], metadata=dict(metadata or {}))


def is_archived(metadata: Mapping[bytes, bytes]) -> bool:
    """Whether a segment file with this metadata is an archived one."""
    return b"crc" in metadata


def read_facts(path: Path | str) -> Facts:
    """What an archived file says of itself, checked; its rows are not touched.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptSegment: the file is damaged, or not an archived segment.
    """
    path = Path(path)
    with told(path), pa.memory_map(str(path)) as file:
        return facts_of(file)


def facts_of(file: pa.NativeFile | pa.Buffer) -> Facts:
    """What an open archived file says of itself; any error stands for damage."""
    reader = pa.ipc.open_file(file)
    metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
    if "crc" not in metadata:
        raise ValueError("it has no crc: it is not an archived segment")
    schema = Schema.from_arrow(pa.schema(list(reader.schema)[len(PLACES) :]))
    said = {name: value for name, value in metadata.items() if name != "checksum"}
    # Files that others wrote have neither counts nor checksum.
    checked = "checksum" in metadata or "counts" in metadata
    if checked and metadata.get("checksum") != _checksum(schema, said):
        raise ValueError("its description does not have its checksum")
    if reader.schema.names != arrow_schema(schema).names:
        raise ValueError(f"it begins with columns {', '.join(reader.schema.names[:2])}, wanted {', '.join(PLACES)}")
    if reader.num_record_batches != 1:
        raise ValueError(f"it has {reader.num_record_batches} record batches")
    streams = numbers_of(metadata["stream_ids"])
    return Facts(
        writer=metadata["writer"],
        index=int(metadata["index"]),
        streams=streams,
        rows=int(metadata["rows"]),
        counts=numbers_of(metadata["counts"]) if "counts" in metadata else _counted(file, streams),
        schema=schema,
        crc=json.loads(metadata["crc"]),
        metadata=metadata,
    )


def _counted(file: pa.NativeFile | pa.Buffer, streams: Sequence[int]) -> tuple[int, ...]:
    """How many rows of each stream there are, by the rows themselves."""
    batch = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=[0])).get_batch(0)
    batch.validate(full=True)
    counts = tuple(int((batch.column(0).to_numpy() == stream).sum()) for stream in streams)
    if sum(counts) != batch.num_rows:
        raise ValueError(f"it has rows of other streams than {', '.join(map(str, streams))}")
    return counts


def read_archived(path: Path | str, columns: Sequence[str] | None = None) -> pa.RecordBatch:
    """Rows of an archived file, every byte of them checked.

    Args:
        path: of the file.
        columns: those wanted, at least one; None: all.

    Returns:
        One batch, stream-major, columns in the file's order; shaped ones are fixed-shape tensors.

    Raises:
        FileNotFoundError: there is no such file.
        SchemaError: the file has no column of a name.
        CorruptSegment: the file is damaged.
    """
    return read_checked(Path(path), columns)[1]


def read_checked(path: Path, columns: Sequence[str] | None = None) -> tuple[Facts, pa.RecordBatch]:
    """What an archived file says of itself, and its rows: see `read_archived`."""
    with told(path):
        file = pa.memory_map(str(path))
        facts = facts_of(file)
    fields = [field for field in facts.arrow if columns is None or field.name in columns]
    missing = [name for name in columns or () if name not in facts.arrow.names]
    if missing:
        raise SchemaError(f"{path} has no column {', '.join(missing)}; it has {', '.join(facts.arrow.names)}")
    with file:
        arrays = [_column(file, path, field, facts) for field in fields]
    return facts, pa.record_batch(arrays, schema=pa.schema(fields, metadata=facts.metadata))


def rectangle(values: np.ndarray, counts: Sequence[int], rows: int) -> np.ndarray:
    """Rows one stream after another as an array (streams, rows, *shape); rows that are not there are zeros."""
    shape = (len(counts), rows, *values.shape[1:])
    if len(values) == len(counts) * rows:
        return values.reshape(shape)
    whole, begin = np.zeros(shape, values.dtype), 0
    for slot, count in enumerate(counts):
        whole[slot, :count] = values[begin : begin + count]
        begin += count
    whole.flags.writeable = False
    return whole


def column_values(batch: pa.RecordBatch, name: str, column: Column) -> np.ndarray:
    """A column of a checked batch as an array (rows, *shape), read-only, no copy."""
    values = values_of(batch.column(name), batch.num_rows * column.row_bytes)
    return np.frombuffer(values, column.dtype).reshape(batch.num_rows, *column.shape)


@contextmanager
def told(path: Path, place: str = "") -> Iterator[None]:
    """Let whatever goes wrong while a segment is parsed say that the segment is damaged, which, and where in it."""
    try:
        yield
    except CorruptSegment:
        raise
    except OSError as error:
        if error.errno is not None:  # the system's, as FileNotFoundError; Arrow's own has none
            raise
        raise damaged(path, place + str(error)) from error
    except (pa.ArrowException, MemoryError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise damaged(path, place + (str(error) or type(error).__name__)) from error


def damaged(path: Path, how: str) -> CorruptSegment:
    """The error for a file whose bytes are not what was written."""
    text = f"{path} is damaged ({how.splitlines()[0]}): restore it from a copy, or remove it to go on without its rows"
    return CorruptSegment(text)


def _column(file: pa.NativeFile, path: Path, field: pa.Field, facts: Facts) -> pa.Array:
    """One column, checked, in an array that owes nothing but the values to the file."""
    rows, name = sum(facts.counts), field.name
    size = rows * (8 if name in PLACES else facts.schema.columns[name].row_bytes)
    with told(path, f'column "{name}": '):
        options = pa.ipc.IpcReadOptions(included_fields=[facts.arrow.names.index(name)])
        batch = pa.ipc.open_file(file, options=options).get_batch(0)
        batch.validate(full=True)  # a damaged header can claim more bytes than there are
        if batch.num_rows != rows:
            raise ValueError(f"it has {batch.num_rows} rows, wanted {rows}")
        values = values_of(batch.column(0), size)
        if zlib.crc32(values) != facts.crc[name]:
            raise ValueError("its checksum is another")
    return array_of(field.type, rows, values)


def _checksum(schema: Schema, facts: Mapping[str, str]) -> str:
    """Of all that a file says of itself: a changed dtype or stream id would leave the columns' own as they are."""
    columns = [f"{name} {column}" for name, column in schema.columns.items()]
    return str(zlib.crc32(json.dumps([columns, sorted(facts.items())]).encode()))


def numbers_of(text: str) -> tuple[int, ...]:
    """The numbers in a fact such as "0,1,2"."""
    return tuple(int(number) for number in text.split(","))
