"""Segments: preallocated Arrow files in which rows live, viewed by numpy without a copy."""

import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from replay.archive_file import column_values, is_archived, read_checked, rectangle, told
from replay.columns import array_of
from replay.schema import Column, Schema

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreError(ValueError):
    """A folder that is no store, or a store that holds nothing yet."""


class StoreFull(OSError):
    """No room for another segment: says the folder, the bytes wanted and the bytes free."""


class Segment:
    """An Arrow IPC file of one record batch, mapped into memory.

    The batch is stream-major: row r of stream s is its row s * rows + r. One writer fills it in
    place, and any number of readers see the bytes as they appear; which rows are complete is
    what commits say. Views keep the mapping alive, so a segment may be unlinked while in use.

    An archived segment is read into memory instead, and checked.

    Attributes:
        columns: name to array (streams, rows, *shape); read-only after `open`, unless it is opened to be written.
        unpacked: bytes that the columns take of this process's memory; 0 where they are the mapped file's own.
        facts: the file's metadata.
    """

    def __init__(self, path: Path, *, writable: bool, hold: bool = False) -> None:
        self.path = path
        self.size = path.stat().st_size
        layout = _layout(path)
        self.unpacked = 0
        if layout is None:
            self._unpack(writable=writable)
            return
        self.schema, self.facts, offsets = layout
        mapping = _map(path, writable=writable, hold=hold)
        with told(path):
            self.streams, self.rows = int(self.facts["streams"]), int(self.facts["rows"])
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
    def open(cls, path: Path | str, *, writable: bool = False, hold: bool = False) -> "Segment":
        """An existing segment, live or archived; the writer of a live one may still be filling it.

        Args:
            path: of the file.
            writable: for its next writer; only a live one can be written.
            hold: keep its writer from using a live one's memory again, until the last view is gone: see `held`.

        Raises:
            FileNotFoundError: there is no such file; or, with `hold`, its writer has just taken it back.
            CorruptSegment: the file is damaged. Of a live one only what says where the columns are is checked, of an
                archived one every byte.
            ValueError: an archived segment cannot be written.
        """
        return cls(Path(path), writable=writable, hold=hold)

    def close(self) -> None:
        """Drop the views; the memory is unmapped once nobody else holds one."""
        self.columns = {}

    def _unpack(self, *, writable: bool) -> None:
        if writable:
            raise ValueError(f"{self.path} is archived: its rows are never changed")
        facts, batch = read_checked(self.path)
        self.schema, self.facts, self.streams, self.rows = facts.schema, facts.metadata, len(facts.counts), facts.rows
        self.columns = {
            name: rectangle(column_values(batch, name, column), facts.counts, facts.rows)
            for name, column in facts.schema.columns.items()
        }
        size = sum(column.nbytes for column in self.columns.values())
        self.unpacked = size if self.size < size else 0  # what is not compressed stays mapped

    def _view(self, mapping: mmap.mmap | pa.Buffer, column: Column, *, offset: int) -> np.ndarray:
        count = self.streams * self.rows * column.row_bytes
        flat = np.frombuffer(mapping, np.uint8, count, offset).view(column.dtype)
        return flat.reshape(self.streams, self.rows, *column.shape)


def _write_zeros(path: Path, schema: pa.Schema, rows: int) -> None:
    """Write a file of `rows` zero rows through ordinary writes, which report a full disk."""
    columns = Schema.from_arrow(schema).columns.values()
    # One block of zeros serves every column: it is untouched memory, so it costs no pages.
    zeros = pa.py_buffer(np.zeros(rows * max(column.row_bytes for column in columns), np.uint8))
    arrays = [array_of(field.type, rows, zeros) for field in schema]
    with path.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))


def _layout(path: Path) -> tuple[Schema, dict[str, str], dict[str, int]] | None:
    """Schema, metadata, and where in the file each column's values begin; None: it is archived."""
    with told(path), pa.memory_map(str(path)) as file:
        base = file.read_buffer(1).address
        file.seek(0)
        reader = pa.ipc.open_file(file)
        metadata = reader.schema.metadata or {}
        if is_archived(metadata):
            return None
        batch = reader.get_batch(0)
        offsets = {
            name: column.buffers()[-1].address - base
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        facts = {key.decode(): value.decode() for key, value in metadata.items()}
        return Schema.from_arrow(reader.schema), facts, offsets


def held(path: Path) -> bool:
    """Whether somebody holds a released segment: then its memory must not be written again, only unlinked.

    It must have lost the name by which readers find it before this is asked: nobody can begin to hold it afterwards.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _map(path: Path, *, writable: bool, hold: bool) -> mmap.mmap | pa.Buffer:
    if not writable and not hold:
        with pa.memory_map(str(path)) as file:
            return file.read_buffer()  # unlike mmap it keeps no file open, of which a process can have only so many
    # Populated at once when written: mapping page by page costs the writer a fault per 4 KiB.
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if writable else 0)
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    with path.open("r+b" if writable else "rb") as file:
        if hold:
            _hold(file, path)
        return mmap.mmap(file.fileno(), 0, flags=flags, prot=protection)


def _hold(file: BinaryIO, path: Path) -> None:
    """Lock a file for as long as it is mapped, and make sure that it still bears its name."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileNotFoundError(errno.ENOENT, "its writer is taking it back", str(path)) from None
    if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
        raise FileNotFoundError(errno.ENOENT, "its writer has taken it back", str(path))


def _store_full(path: Path, wanted: int) -> StoreFull:
    free = shutil.disk_usage(path.parent).free
    text = f"{path.parent} has no room for a segment: wanted {wanted:,} bytes, {free:,} bytes free; "
    return StoreFull(errno.ENOSPC, text + "lower the tables' capacity or rows_per_segment, or use a larger folder")
