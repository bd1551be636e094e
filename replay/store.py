"""A store as its files have it: rows and draws of a run, read while it goes on or long after."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from replay.archive_file import read_archived
from replay.draw_log import SCHEMA as DRAWS
from replay.draw_log import read_draws
from replay.schema import Schema, SchemaError
from replay.segment import StoreError
from replay.snapshot import IPC, StoredSegment, open_schema, snapshot

__all__ = ["Store", "StoreError"]


class Store:
    """A store's files, for reading only. It holds nothing open: every call looks at the files as they are then.

    Args:
        log: folder of what is kept for good.
        live: folder of live segments, there only while a run lasts or after it was killed; None: there is none.
    """

    def __init__(self, log: Path, live: Path | None = None) -> None:
        self.log, self.live = log, live

    @classmethod
    def open(cls, path: Path | str) -> "Store":
        """The store in a run's folder, in its replay folder, or in a folder that was imported.

        Raises:
            StoreError: there is none.
        """
        for folder in (Path(path) / "replay", Path(path)):
            begun = folder.name == "replay" and folder.is_dir()  # a run makes it before anything is in it
            if begun or (folder / "log").is_dir() or (folder / "segments").is_dir():
                return cls(folder / "log", folder / "segments")
        wanted = "wanted the folder of a run, its replay folder, or one with log/ in it"
        raise StoreError(f"{path} {'holds no store' if Path(path).exists() else 'is not there'}: {wanted}")

    @property
    def schema(self) -> Schema:
        """Columns of the rows.

        Raises:
            StoreError: there are no rows yet.
            SchemaError: segments differ in them.
        """
        return _common_schema(self.files(), self.log.parent)

    def files(self) -> list[StoredSegment]:
        """The segments that hold complete rows, by writer and index; each is held until it is dropped.

        Raises:
            CorruptSegment: a file is damaged.
        """
        return snapshot(self.log, self.live)

    def dataset(self, *, plain: bool = False) -> ds.Dataset:
        """All complete rows at this moment, to be read lazily, column by column, by Arrow or whatever knows Arrow.

        The columns are writer (string), stream, row, and those of the schema. Archived files are decompressed when they
        are read; live ones are not copied. What a writer appends later is not in it, and what leaves the store later
        is: as long as the dataset lives, the files that it refers to take up their room.

        Checksums are not looked at: see `verify`.

        Args:
            plain: in types that every reader of Arrow knows: lists of fixed size for tensors, float32 for float16.

        Raises:
            StoreError: there are no rows yet.
            SchemaError: segments differ in their columns; names a file and the column.
            CorruptSegment: a file is damaged in what describes it.
        """
        segments = self.files()
        schema = open_schema(_common_schema(segments, self.log.parent), plain=plain)
        archived = [segment.fragment() for segment in segments if segment.archived]
        live = [batch for segment in segments if not segment.archived for batch in segment.batches(schema)]
        parts = [ds.FileSystemDataset(archived, schema, IPC), ds.InMemoryDataset(live, schema=schema)]
        return ds.UnionDataset(schema, [part for part, content in zip(parts, (archived, live), strict=True) if content])

    def draws(self) -> pa.Table:
        """What learners drew: one row for each window of each learner step, in order of step, table, shard and place.

        Where a run was resumed, what had been drawn after the checkpoint that it went on from is left out: those steps
        led to weights that are gone. What a process had not written whole when it died is missing.
        """
        files = [read_draws(path) for path in sorted(self.log.glob("draws-*.arrows"))]
        draws = pa.concat_tables([DRAWS.empty_table(), *files])
        keep = _lasting(draws["start"].to_numpy(), draws["step"].to_numpy())
        return draws.filter(pa.array(keep)).sort_by(
            [(name, "ascending") for name in ("step", "table", "shard", "place")]
        )

    def verify(self) -> int:
        """Read every byte of the archived files and check it; how many rows they hold.

        Raises:
            CorruptSegment: a file is damaged; names it and the column.
        """
        rows = 0
        for segment in self.files():
            with suppress(FileNotFoundError):  # it has expired
                rows += read_archived(segment.path).num_rows if segment.archived else 0
        return rows


def _common_schema(segments: list[StoredSegment], folder: Path) -> Schema:
    if not segments:
        raise StoreError(f"{folder} holds no rows yet")
    first = segments[0]
    for segment in segments[1:]:
        if segment.schema == first.schema:
            continue
        theirs, ours = segment.schema.columns, first.schema.columns
        name = next(name for name in theirs | ours if theirs.get(name) != ours.get(name))
        difference = (
            f'column "{name}" is {theirs.get(name, "missing")}, but {ours.get(name, "missing")} in {first.path}'
        )
        raise SchemaError(f"{segment.path}: {difference}; segments of one store need the same columns")
    return first.schema


def _lasting(starts: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Which draws are of steps that no later start of the run took again."""
    keep = np.ones(len(steps), np.bool_)
    for start in np.unique(starts):
        later = steps[starts > start]
        if len(later):
            keep[starts == start] = steps[starts == start] < later.min()
    return keep
