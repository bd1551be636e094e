"""Snapshots: the segments of a store at one moment, archived and live, held so that they can be read later."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from replay.archive_file import arrow_schema, facts_of, told
from replay.archiving import complete_rows, place_of, places_of, streams_of
from replay.columns import array_of
from replay.extents import Extents
from replay.schema import Column, Schema
from replay.segment import Segment

IPC = ds.IpcFileFormat()


@dataclass(frozen=True, eq=False)
class StoredSegment:
    """A segment's complete rows, wherever they are.

    Args:
        path: of the file.
        writer: whose rows they are.
        index: of the segment among the writer's.
        archived: whether the file is an archived one, else a live one.
        schema: of the rows.
        streams: id of the stream in each slot.
        rows: of each stream in a whole segment.
        counts: complete rows of each slot, the first ones of the segment.
        memory: what keeps the bytes: an archived file's mapping, or a live segment.
    """

    path: Path
    writer: str
    index: int
    archived: bool
    schema: Schema
    streams: tuple[int, ...]
    rows: int
    counts: tuple[int, ...]
    memory: pa.Buffer | Segment

    @property
    def total(self) -> int:
        """Complete rows of all slots."""
        return sum(self.counts)

    @property
    def whole(self) -> bool:
        """Whether the segment is complete."""
        return self.total == self.rows * len(self.streams)

    def fragment(self) -> ds.Fragment:
        """An archived segment as Arrow datasets read it: column by column, when they need it."""
        writer = ds.field("writer") == self.writer
        return IPC.make_fragment(pa.BufferReader(self.memory), partition_expression=writer)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """A live segment's complete rows, no copy: one batch if it is complete, else one for each slot.

        Args:
            schema: `open_schema` of the segment's; says the order of the columns.
        """
        assert isinstance(self.memory, Segment)
        slots = [slice(None)] if self.whole else [slice(slot, slot + 1) for slot in range(len(self.counts))]
        places, begin = places_of(self.memory, np.array(self.counts)), 0
        for slot in slots:
            rows = sum(self.counts[slot])
            values = {name: view[slot, : max(self.counts[slot])] for name, view in self.memory.columns.items()}
            values |= {name: numbers[begin : begin + rows] for name, numbers in places.items()}
            arrays = [
                _array(values[field.name], rows, self.schema.columns.get(field.name), field.type)
                for field in list(schema)[1:]
            ]
            begin += rows
            if rows:
                yield pa.record_batch([pa.repeat(self.writer, rows), *arrays], schema=schema)


def _array(values: np.ndarray, rows: int, column: Column | None, wanted: pa.DataType) -> pa.Array:
    array = array_of(column.arrow() if column else pa.int64(), rows, pa.py_buffer(values))
    if array.type == wanted:
        return array
    return (array.storage if isinstance(array, pa.ExtensionArray) else array).cast(wanted)


def open_schema(schema: Schema, *, plain: bool = False) -> pa.Schema:
    """The Arrow schema of a store's rows: writer, stream, row, then the columns.

    Args:
        schema: of the rows.
        plain: in types that every reader of Arrow knows: lists of fixed size for tensors, float32 for float16.
    """
    fields = [pa.field("writer", pa.string()), *arrow_schema(schema)]
    return pa.schema([pa.field(field.name, _plain(field.type)) if plain else field for field in fields])


def _plain(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.FixedShapeTensorType):
        return pa.list_(_plain(kind.value_type), kind.storage_type.list_size)
    return pa.float32() if kind == pa.float16() else kind


def snapshot(log: Path, live: Path | None) -> list[StoredSegment]:
    """All segments of a store that hold complete rows, by writer and index.

    A store that is in use goes on meanwhile. What is live is listed before what is archived, since a segment goes from
    one to the other and not back; one that is gone when its turn comes is looked for in the archive, where it is, or
    has expired.

    Args:
        log: folder of the archive.
        live: of the live segments; neither needs to exist.

    Raises:
        CorruptSegment: a file is damaged.
        ExtentsError: the same.
    """
    mapped = _listed(live)
    found = {place: segment for place, path in _listed(log).items() if (segment := _archived(path)) is not None}
    ends: dict[str, np.ndarray] = {}
    for place, path in mapped.items():
        known = found.get(place)
        if known is not None and known.whole:
            continue
        segment = _live(path, ends) or _archived(log / path.name)
        if segment is not None and (known is None or segment.total > known.total):
            found[place] = segment
    return [segment for _, segment in sorted(found.items()) if segment.total]


def _listed(folder: Path | None) -> dict[tuple[str, int], Path]:
    """Segment files of a folder by writer and index; none where there is no folder."""
    paths = [] if folder is None else folder.glob("*.arrow")
    return {place: path for path in paths if (place := place_of(path)) is not None}


def _archived(path: Path) -> StoredSegment | None:
    """An archived segment, mapped; None: it is gone."""
    try:
        with told(path), pa.memory_map(str(path)) as file:
            memory = file.read_buffer()  # outlives the file, which there may be more of than a process can have open
            facts = facts_of(memory)
    except FileNotFoundError:
        return None
    writer, index = place_of(path) or (facts.writer, facts.index)
    return StoredSegment(path, writer, index, True, facts.schema, facts.streams, facts.rows, facts.counts, memory)


def _live(path: Path, ends: dict[str, np.ndarray]) -> StoredSegment | None:
    """A live segment, held; None: it is gone, or nobody says what of it is complete.

    Args:
        path: of the file.
        ends: of the writers asked for so far; added to.
    """
    writer, index = place_of(path) or ("", 0)
    try:
        segment = Segment.open(path, hold=True)
        if writer not in ends:
            ends[writer] = Extents.read(path.with_name(f"{writer}.ends"))[2]
    except FileNotFoundError:
        return None
    counts = tuple(complete_rows(segment, ends[writer]).tolist())
    streams = tuple(streams_of(segment).tolist())
    return StoredSegment(path, writer, index, False, segment.schema, streams, segment.rows, counts, segment)
