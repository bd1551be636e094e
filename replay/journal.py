"""A journal: what a shard was told, in order, so that another process can become the same shard."""

import os
import pickle
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from replay.segment import FULL, StoreFull

HEAD = b"contrail journal 3\n"
_FRAME = struct.Struct("<QII")  # length of the record, its checksum, and that of these two
_NAME = re.compile(r"(?P<name>.+)-(?P<number>\d{6})\.journal")


class JournalError(ValueError):
    """A journal that cannot be read: names the file and what to do."""


class Journal:
    """An append-only file of records, begun again from a snapshot now and then.

    Every record is one `write`: it survives the death of this process as soon as `append` returns, and that of the
    machine from the next `begin` on. A record that a death cut short is not read. Where there is no room, the journal
    stays as it was before the call.

    Args:
        folder: of the files NAME-000000.journal, NAME-000001.journal, ...; made if missing.
        name: of the shard.
    """

    def __init__(self, folder: Path | str, name: str) -> None:
        self._folder, self._name = Path(folder), name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._starts = {path: _snapshot_step(path) for path in files(self._folder, name)}
        self._file = -1
        self.size = self.snapshot_size = 0

    def begin(self, step: int, state: bytes) -> None:
        """Start the next file with a snapshot, on the disk when this returns.

        Args:
            step: draws formed before it.
            state: from which the later records lead to the present.

        Raises:
            StoreFull: there is no room.
        """
        number = 1 + max((_number(path) for path in self._starts), default=-1)
        path = self._folder / f"{self._name}-{number:06d}.journal"
        partial = path.with_suffix(".partial")
        # A half-written snapshot must not look like a journal, so the file takes its name when it is whole.
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
        try:
            size = _write(file, HEAD) + _write(file, _framed(("snapshot", step, state)))
            os.fsync(file)
            partial.rename(path)
        except OSError as error:
            os.close(file)
            partial.unlink(missing_ok=True)
            raise self._told(error) from error
        self.close()
        self._file, self._starts[path] = file, step
        self.size = self.snapshot_size = size

    def append(self, record: tuple) -> None:
        """Add a record.

        Raises:
            StoreFull: there is no room.
        """
        try:
            self.size += _write(self._file, _framed(record))
        except OSError as error:
            os.ftruncate(self._file, self.size)
            raise self._told(error) from error

    def _told(self, error: OSError) -> OSError:
        """The same error, with the folder and what to do where it has no room."""
        if error.errno not in FULL:
            return error
        free = shutil.disk_usage(self._folder).free
        text = f"{self._folder} has no room for the journal of {self._name}, {free:,} bytes are free: make room there"
        return StoreFull(error.errno, text)

    def forget(self, before: int) -> None:
        """Remove files that nobody needs who goes back to `before` draws or further ahead."""
        paths = sorted(self._starts)
        for path, following in pairwise(paths):
            if self._starts[following] <= before:
                path.unlink(missing_ok=True)
                del self._starts[path]

    def begun(self, otherwise: int) -> int:
        """Draws that had been formed when this start's first file was begun; `otherwise` where there is none yet."""
        return min(self._starts.values(), default=otherwise)

    def forget_earlier_starts(self) -> None:
        """Remove the folders of the starts before this one, where folders bear a start's number."""
        for folder in self._folder.parent.glob("[0-9]*"):
            if self._folder.name.isdigit() and folder.name.isdigit() and int(folder.name) < int(self._folder.name):
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def files(folder: Path, name: str) -> list[Path]:
    """A shard's journal files, oldest first."""
    found = [path for path in folder.glob("*.journal") if (m := _NAME.fullmatch(path.name)) and m["name"] == name]
    return sorted(found)


def names(folder: Path) -> list[str]:
    """The shards that have a journal in a folder."""
    matches = [_NAME.fullmatch(path.name) for path in folder.glob("*.journal")]
    return sorted({match["name"] for match in matches if match})


def replayed(folder: Path, name: str, until: int | None = None) -> tuple[int, bytes, Iterator[tuple]] | None:
    """The newest snapshot that leads to a moment, and the records from there.

    Args:
        folder: of the journal.
        name: of the shard.
        until: the moment: when so many draws had been formed, all of them before it; None: the end.

    Returns:
        Its step, its state, and the records; None: there is no journal that goes back so far.

    Raises:
        JournalError: a file is damaged other than by a cut at its end.
    """
    for path in reversed(files(folder, name)):
        records = read(path)
        first: Any = next(records, None)
        if first is None:
            continue  # cut short while it was begun
        if first[0] != "snapshot":
            raise JournalError(f"{path} begins with a {first[0]!r} record, wanted a snapshot: remove the file")
        if until is None or first[1] <= until:
            return first[1], first[2], records
    return None


def read(path: Path) -> Iterator[tuple]:
    """The whole records of a file, up to one that was cut short.

    Raises:
        JournalError: it is no journal, or a record before the last one is damaged.
    """
    content = path.read_bytes()
    if not content.startswith(HEAD):
        if HEAD.startswith(content):
            return
        raise JournalError(f"{path} is no journal of this version: remove it, or use the version that wrote it")
    place = len(HEAD)
    while place + _FRAME.size <= len(content):
        length, checksum, of_both = _FRAME.unpack_from(content, place)
        whole = zlib.crc32(content[place : place + _FRAME.size - 4]) == of_both
        end = place + _FRAME.size + (length if whole else 0)
        record = content[place + _FRAME.size : end]
        if not whole or len(record) < length or zlib.crc32(record) != checksum:
            if not content[end:].strip(b"\0"):
                return  # cut short; or zeros, where the file system lost the end when the machine died
            raise JournalError(
                f"{path} is damaged at byte {place}: what the store held is lost from there on; remove it"
            )
        yield pickle.loads(record)
        place = end


def _framed(record: tuple) -> bytes:
    content = pickle.dumps(record, protocol=5)
    frame = struct.pack("<QI", len(content), zlib.crc32(content))
    return frame + struct.pack("<I", zlib.crc32(frame)) + content


def _write(file: int, content: bytes) -> int:
    """Write all of it; a large write may be done in part."""
    written = os.write(file, content)
    while written < len(content):
        written += os.write(file, memoryview(content)[written:])
    return written


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match, path
    return int(match["number"])


def _snapshot_step(path: Path) -> int:
    first: Any = next(read(path), None)
    return -1 if first is None else int(first[1])
