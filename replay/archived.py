"""Archived segments as a writer's commit: how a store begins with rows that nobody writes any more."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.messages import Commit, SegmentInfo
from replay.segment_files import index_of


def archived_commit(writer: str, paths: Sequence[Path], watch: Sequence[str] = ()) -> Commit:
    """What a writer would have committed that wrote these segments and is done.

    The last row of each stream counts as open: it can be seen in a window, but its decision is not known to be whole.

    Args:
        writer: its name.
        paths: of all its archived segments.
        watch: columns of whose changes windows must know.

    Raises:
        ValueError: a segment in the middle is missing; names it.
    """
    parts = [_read(path, watch) for path in sorted(paths)]
    streams, rows = parts[0][0], parts[0][1]
    indices = [index_of(path) for path in sorted(paths)]
    first = indices[0]
    if indices != list(range(first, first + len(indices))):
        gap = next(index for index, follows in pairwise(indices) if follows != index + 1) + 1
        raise ValueError(f"{paths[0].parent}: segment {gap} of {writer} is missing, though later ones are there")
    stream, row = (np.concatenate([part[2][name] for part in parts]) for name in ("stream", "row"))
    changes = {
        name: _changes(streams, stream, row, np.concatenate([part[2][name] for part in parts])) for name in watch
    }
    return Commit(
        writer=writer,
        streams=tuple(streams),
        begins=tuple(int(row[stream == s].min(initial=first * rows)) for s in streams),
        ends=tuple(int(row[stream == s].max(initial=first * rows)) + 1 for s in streams),
        version=0,
        segments=tuple(
            SegmentInfo(index, str(path.resolve()), 0, archived=True)
            for index, path in zip(indices, sorted(paths), strict=True)
        ),
        rows_per_segment=rows,
        sequence=0,
        changes=changes,
    )


def _read(path: Path, watch: Sequence[str]) -> tuple[list[int], int, dict[str, np.ndarray]]:
    """Streams and rows per segment, and the columns that tell where rows are."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(
            file, options=pa.ipc.IpcReadOptions(included_fields=_places(file, ["stream", "row", *watch]))
        )
        facts, batch = reader.schema.metadata, reader.get_batch(0)
        columns = {name: batch.column(name).to_numpy(zero_copy_only=False).copy() for name in ["stream", "row", *watch]}
    return [int(stream) for stream in facts[b"stream_ids"].split(b",")], int(facts[b"rows"]), columns


def _places(file: pa.NativeFile, names: Sequence[str]) -> list[int]:
    schema = pa.ipc.open_file(file).schema
    file.seek(0)
    return [schema.get_field_index(name) for name in names]


def _changes(
    streams: Sequence[int], stream: np.ndarray, row: np.ndarray, values: np.ndarray
) -> tuple[tuple[int, int], ...]:
    """(slot, row) where a stream's value differs from the row before."""
    found: list[tuple[int, int]] = []
    for slot, number in enumerate(streams):
        mine = np.flatnonzero(stream == number)
        mine = mine[np.argsort(row[mine])]
        different = np.flatnonzero(values[mine][1:] != values[mine][:-1]) + 1
        found += [(slot, int(row[mine[place]])) for place in different]
    return tuple(found)
