"""Segments: preallocated Arrow files in which rows live, viewed by numpy without a copy."""

import errno
import mmap
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.schema import Column, Schema

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreFull(OSError):
    """No room for another segment: says the folder, the bytes wanted and the bytes free."""


class Segment:
    """An Arrow IPC file of one record batch, mapped into memory.

    The batch is stream-major: row r of stream s is its row s * rows + r. One writer fills it in
    place, and any number of readers see the bytes as they appear; which rows are complete is
    what commits say. Views keep the mapping alive, so a segment may be unlinked while in use.

    Attributes:
        columns: name to array (streams, rows, *shape); read-only after `open`.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.schema, (self.streams, self.rows), offsets = _layout(path)
        mapping = _map(path, writable=writable)
        self.size = len(mapping)
        self.columns = {
            name: self._view(mapping, column, offset=offsets[name]) for name, column in self.schema.columns.items()
        }

    @classmethod
    def create(
        cls, path: Path | str, schema: Schema, *, streams: int, rows: int, metadata: Mapping[str, str] | None = None
    ) -> "Segment":
        """A new segment of zeros, writable.

        Every byte is written now: a mapped file with holes would kill its writer with SIGBUS
        when the disk fills later.

        Args:
            path: where it appears, complete, when this returns.
            schema: of its rows.
            streams: how many streams it holds.
            rows: of each stream.
            metadata: further facts for those who query the file.

        Raises:
            StoreFull: there is no room; nothing is left behind.
        """
        path = Path(path)
        facts = {**(metadata or {}), "streams": str(streams), "rows": str(rows)}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            _write_zeros(temporary, schema.arrow(facts), streams * rows)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise
            raise _store_full(path, schema.row_bytes * streams * rows) from error
        return cls(path, writable=True)

    @classmethod
    def open(cls, path: Path | str) -> "Segment":
        """An existing segment, read-only; its writer may still be filling it."""
        return cls(Path(path), writable=False)

    def close(self) -> None:
        """Drop the views; the memory is unmapped once nobody else holds one."""
        self.columns = {}

    def _view(self, mapping: mmap.mmap, column: Column, *, offset: int) -> np.ndarray:
        count = self.streams * self.rows * column.row_bytes
        flat = np.frombuffer(mapping, np.uint8, count, offset).view(column.dtype)
        return flat.reshape(self.streams, self.rows, *column.shape)


def _write_zeros(path: Path, schema: pa.Schema, rows: int) -> None:
    """Write a file of `rows` zero rows through ordinary writes, which report a full disk."""
    columns = Schema.from_arrow(schema).columns.values()
    # One block of zeros serves every column: it is untouched memory, so it costs no pages.
    zeros = pa.py_buffer(np.zeros(rows * max(column.row_bytes for column in columns), np.uint8))
    arrays = [_zero_array(field.type, rows, zeros) for field in schema]
    with path.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))


def _zero_array(kind: pa.DataType, rows: int, zeros: pa.Buffer) -> pa.Array:
    if not isinstance(kind, pa.FixedShapeTensorType):
        return pa.Array.from_buffers(kind, rows, [None, zeros])
    storage = kind.storage_type
    values = pa.Array.from_buffers(storage.value_type, rows * storage.list_size, [None, zeros])
    return pa.ExtensionArray.from_storage(kind, pa.Array.from_buffers(storage, rows, [None], children=[values]))


def _layout(path: Path) -> tuple[Schema, tuple[int, int], dict[str, int]]:
    """Schema, (streams, rows), and where in the file each column's values begin."""
    with pa.memory_map(str(path)) as file:
        base = file.read_buffer(1).address
        file.seek(0)
        reader = pa.ipc.open_file(file)
        batch, facts = reader.get_batch(0), reader.schema.metadata
        offsets = {
            name: column.buffers()[-1].address - base
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        return Schema.from_arrow(reader.schema), (int(facts[b"streams"]), int(facts[b"rows"])), offsets


def _map(path: Path, *, writable: bool) -> mmap.mmap:
    # Populated at once when written: mapping page by page costs the writer a fault per 4 KiB.
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if writable else 0)
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    with path.open("r+b" if writable else "rb") as file:
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=protection)


def _store_full(path: Path, wanted: int) -> StoreFull:
    free = shutil.disk_usage(path.parent).free
    text = f"{path.parent} has no room for a segment: wanted {wanted:,} bytes, {free:,} bytes free; "
    return StoreFull(errno.ENOSPC, text + "lower the tables' capacity or rows_per_segment, or use a larger folder")
