"""Archiving: the complete rows of one live segment into a compressed file that is never changed."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from replay.archive_file import PLACES, marked, numbers_of
from replay.columns import array_of
from replay.schema import Schema
from replay.segment import FULL, Segment, StoreFull

Codec = Literal["lz4", "zstd", "none"]
"""How an archived file is compressed: lz4 costs little, zstd makes smaller files, "none" can be mapped as it is."""

_NAME = re.compile(r"(?!\.)(.+)-(\d{6,})\.arrow")


def place_of(path: Path | str) -> tuple[str, int] | None:
    """The writer and index that a segment file's name says; None: it is not the name of one."""
    found = _NAME.fullmatch(Path(path).name)
    return (found[1], int(found[2])) if found else None


def archive(
    segment_path: Path | str, target_folder: Path | str, *, ends: np.ndarray, codec: Codec = "lz4"
) -> Path | None:
    """Write the complete rows of a live segment to the archive.

    The file appears whole and is on the disk when this returns; one of its name is replaced. Rows that are complete
    never change, so the segment's writer may go on meanwhile.

    Args:
        segment_path: of the live segment.
        target_folder: of the archive; made if missing.
        ends: (slots,) one past the open row of each slot of its writer, counted from the writer's first row.
        codec: how it is compressed.

    Returns:
        The file; None: the segment has no complete rows.

    Raises:
        StoreFull: there is no room in the folder; nothing is left behind.
        CorruptSegment: the live file is damaged.
        ValueError: the file's name or facts do not say whose rows they are, or `ends` are not of its slots.
    """
    path, folder = Path(segment_path), Path(target_folder)
    segment = Segment.open(path)
    counts = complete_rows(segment, ends)
    if not counts.any():
        return None
    values = places_of(segment, counts) | {name: _packed(view, counts) for name, view in segment.columns.items()}
    writer, index = place_of(path) or ("", 0)
    # The name is the truth: a file that its writer uses again keeps the facts that it was made with.
    facts = {**segment.facts, "writer": writer, "index": str(index)}
    write_archived(folder / path.name, segment.schema, values, counts=counts.tolist(), facts=facts, codec=codec)
    return folder / path.name


def complete_rows(segment: Segment, ends: np.ndarray) -> np.ndarray:
    """How many rows of each slot of a live segment are complete: int64 (slots,).

    Raises:
        ValueError: the ends are not of its slots, or its name does not say which segment it is.
    """
    place = place_of(segment.path)
    if place is None:
        raise ValueError(f"{segment.path} is not named WRITER-000000.arrow: nobody can say whose rows it holds")
    if len(ends) != segment.streams:
        raise ValueError(f"{segment.path} has {segment.streams} slots, got the ends of {len(ends)}")
    return np.clip(ends - 1 - place[1] * segment.rows, 0, segment.rows)


def streams_of(segment: Segment) -> np.ndarray:
    """Id of the stream in each slot of a live segment, int64 (slots,).

    Raises:
        ValueError: the segment does not say which streams it holds.
    """
    streams = numbers_of(segment.facts.get("stream_ids") or "-1")
    if len(streams) != segment.streams or min(streams) < 0:
        raise ValueError(f"{segment.path} does not say which streams it holds: wanted stream_ids of {segment.streams}")
    return np.array(streams, np.int64)


def places_of(segment: Segment, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Columns "stream" and "row" of a live segment's complete rows, int64, stream-major."""
    _, index = place_of(segment.path) or ("", 0)
    rows = np.concatenate([np.arange(count) for count in counts]) + index * segment.rows
    return dict(zip(PLACES, (np.repeat(streams_of(segment), counts), rows), strict=True))


def _packed(view: np.ndarray, counts: np.ndarray) -> np.ndarray:
    if (counts == view.shape[1]).all():
        return view.reshape(-1, *view.shape[2:])
    return np.concatenate([view[slot, :count] for slot, count in enumerate(counts)])


def write_archived(
    path: Path,
    schema: Schema,
    values: Mapping[str, np.ndarray],
    *,
    counts: Sequence[int],
    facts: Mapping[str, str],
    codec: Codec,
) -> None:
    """Write an archived segment; it appears whole, and is on the disk when this returns.

    Args:
        path: of the file, WRITER-000000.arrow; its folder is made if missing.
        schema: of the rows.
        values: (n, *shape) of every column, "stream" and "row" among them; stream-major, in C order.
        counts: rows of each slot.
        facts: writer, index, stream_ids, streams and rows, as text, and whatever else is known.
        codec: how it is compressed.

    Raises:
        StoreFull: there is no room in the folder; nothing is left behind.
    """
    described, total = marked(schema, counts, values, facts), sum(counts)
    arrays = [array_of(field.type, total, pa.py_buffer(values[field.name])) for field in described]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(temporary, pa.record_batch(arrays, schema=described), codec)
        temporary.replace(path)
        _flush_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError) or error.errno not in FULL:
            raise
        raise _archive_full(path.parent, sum(array.nbytes for array in values.values())) from error


def _write(path: Path, batch: pa.RecordBatch, codec: Codec) -> None:
    # One thread: this happens beside actors and learners, which want the cores.
    compression = None if codec == "none" else codec
    options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False, allow_64bit=True)
    with path.open("wb") as file:
        with pa.ipc.new_file(file, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _archive_full(folder: Path, wanted: int) -> StoreFull:
    free = shutil.disk_usage(folder).free
    text = f"{folder} has no room for archived rows: wanted at most {wanted:,} bytes, {free:,} bytes free; "
    return StoreFull(FULL[0], text + "make room there, lower what the archive may keep, or keep it elsewhere")
