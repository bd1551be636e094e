"""A writer: puts rows into its segments and tells a shard which ranges can be read.

Who owns what: a writer owns its segments' bytes until they are committed and their names until
then; afterwards the shard decides when they go. It leaves those that nobody reads any more for
the writer to use again. What is lost when it dies: rows after its last commit.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from replay.extents import Extents
from replay.messages import Commit, SegmentInfo
from replay.schema import Schema, SchemaError
from replay.segment import Segment, held


class Writer:
    """Rows of several streams, appended in place to memory-mapped segments.

    Args:
        name: unique to this incarnation; a restarted actor takes another.
        schema: of the rows.
        streams: id of the stream in each slot.
        folder: of the segments, shared with the shard and samplers; made if missing.
        rows_per_segment: rows of each stream in one segment.
        commit: takes each Commit; when it raises, the next commit covers the same rows again.
        watch: columns that windows may not cross a change of (`Table.within`); scalars.

    Raises:
        FileExistsError: the folder holds segments of a writer of this name.
        SchemaError: the schema has no mask, or no scalar of a name in `watch`.
    """

    def __init__(
        self,
        name: str,
        schema: Schema,
        *,
        streams: Sequence[int],
        folder: Path | str,
        rows_per_segment: int,
        commit: Callable[[Commit], object],
        watch: Sequence[str] = (),
    ) -> None:
        _check(schema, watch)
        self.name, self.schema, self.streams = name, schema, tuple(int(stream) for stream in streams)
        self._folder, self._rows, self._send = Path(folder), rows_per_segment, commit
        self._folder.mkdir(parents=True, exist_ok=True)
        if next(self._folder.glob(f"{name}-{'[0-9]' * 6}.arrow"), None):
            raise FileExistsError(f'{folder} holds segments of a writer "{name}": a new writer needs a new name')
        # Whoever looks at a live file and sees a mask of 1 must see the rest of the row too.
        self._order = sorted(schema.columns, key=lambda column: column == "mask")
        self._next = np.zeros(len(self.streams), np.int64)  # each slot's open row
        self._begins = self._next.copy()
        self._segments: dict[int, Segment] = {}
        self._all = np.arange(len(self.streams))
        self._passed: dict[int, Segment] = {}  # full ones stay mapped, since they are likely to be used again
        self._unannounced: set[int] = set()
        self._sequence, self._checked = 0, False
        self._together = 0  # the open row when it is the same in every slot, else -1
        self._blank = {
            name: np.zeros((len(self.streams), *column.shape), column.dtype) for name, column in schema.columns.items()
        }
        self._ends = Extents.create(self._folder / f"{name}.ends", len(self.streams))
        self._last = {column: np.zeros(len(self.streams), schema.columns[column].dtype) for column in watch}
        self._changes: dict[str, list[tuple[int, int]]] = {column: [] for column in watch}

    def append(self, columns: Mapping[str, np.ndarray], slots: np.ndarray | None = None) -> None:
        """Write one whole row in each slot, over its open row; readable after the next commit.

        Args:
            columns: (n, *shape) for every column of the schema.
            slots: the n slots to write, all different; None: all of them.

        Raises:
            SchemaError: (first append) a column is missing, unknown, or has another dtype or shape.
            StoreFull: there is no room for another segment.
        """
        if not self._checked:
            self.schema.check_complete(columns, len(self.streams) if slots is None else len(slots))
            self._checked = True
        chosen = self._all if slots is None else slots
        for name, last in self._last.items():
            for place in np.flatnonzero((columns[name] != last[chosen]) & (self._next[chosen] > 0)).tolist():
                self._changes[name].append((int(chosen[place]), int(self._next[chosen[place]])))
            last[chosen] = columns[name]
        if slots is None and self._together >= 0:
            self._write_together(columns, self._order)
            self._together += 1
            self._next += 1
            return
        self._write_apart(columns, self._order, chosen)
        self._next[chosen] += 1
        self._together = int(self._next[0]) if (self._next == self._next[0]).all() else -1

    def extend(self, columns: Mapping[str, np.ndarray]) -> None:
        """Append several whole rows to every slot at once: an import, or an environment that answers in blocks.

        Args:
            columns: (slots, rows, *shape).

        Raises:
            SchemaError: as `append`.
            StoreFull: there is no room for another segment; the rows before it are appended.
        """
        rows = columns["mask"].shape[1]
        first = {name: values[:, 0] for name, values in columns.items()}
        self.schema.check_complete(first, len(self.streams))
        if self._together < 0:
            for row in range(rows):
                self.append({name: values[:, row] for name, values in columns.items()})
            return
        done = 0
        while done < rows:
            index, offset = divmod(self._together, self._rows)
            count = min(rows - done, self._rows - offset)
            views, part = self._segment(index).columns, slice(done, done + count)
            self._note_changes({name: columns[name][:, part] for name in self._last}, np.arange(len(self.streams)))
            for name in self._order:
                views[name][:, offset : offset + count] = columns[name][:, part]
            self._together += count
            self._next += count
            done += count

    def commit(self, open_columns: Mapping[str, np.ndarray], *, version: int) -> None:
        """Write every slot's open row and make all rows up to it readable.

        Args:
            open_columns: (slots, *shape) of what is known before the decision: the observation,
                episode, step. Other columns stay zero, the mask too.
            version: of the weights that decided the rows since the last commit.

        Raises:
            SchemaError: an observation column is missing, another is unknown or has another
                dtype or shape, or a mask is not 0.
            StoreFull: there is no room for another segment.
        """
        check_open(self.schema, open_columns, len(self.streams))
        # A segment that is used again holds old rows: what is not known yet is zero all the same.
        row = {**self._blank, **open_columns}
        if self._together >= 0:
            self._write_together(row, self._order[:-1])
        else:
            self._write_apart(row, self._order[:-1], np.arange(len(self.streams)))
        ends = self._next + 1
        message = self._message(ends, version)
        self._sequence += 1
        # First on the record, then in use: what was ever drawn is found again.
        self._ends.write(message.sequence, message.version, ends)
        # What was sent may have come, whatever is raised now: from here on the shard removes it.
        self._unannounced -= {segment.index for segment in message.segments}
        self._send(message)
        self._begins = ends - 1
        self._changes = {column: [] for column in self._changes}
        self._drop_full()

    def close(self) -> None:
        """Drop the segments, and unlink those that no commit has named."""
        for segment in self._passed.values():
            segment.close()
        for index, segment in self._segments.items():
            segment.close()
            if index in self._unannounced:
                segment.path.unlink(missing_ok=True)
        if not self._sequence:
            self._ends.path.unlink(missing_ok=True)
        self._segments, self._passed, self._unannounced = {}, {}, set()

    def _note_changes(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> None:
        """Remember where a watched column (slots, rows) has another value than in the row before."""
        for name, values in columns.items():
            last = self._last[name]
            before = np.concatenate([last[slots][:, None], values[:, :-1]], axis=1)
            # Row 0 begins a run anyway.
            places = np.argwhere((values != before) & (self._next[slots][:, None] + np.arange(values.shape[1]) > 0))
            self._changes[name] += [(int(slots[slot]), int(self._next[slots[slot]] + row)) for slot, row in places]
            last[slots] = values[:, -1]

    def _write_together(self, columns: Mapping[str, np.ndarray], order: Sequence[str]) -> None:
        index, row = divmod(self._together, self._rows)
        views = self._segment(index).columns
        for name in order:
            views[name][:, row] = columns[name]

    def _write_apart(self, columns: Mapping[str, np.ndarray], order: Sequence[str], slots: np.ndarray) -> None:
        indices, rows = np.divmod(self._next[slots], self._rows)
        for index in np.unique(indices):
            views, here = self._segment(int(index)).columns, np.flatnonzero(indices == index)
            for name in order:
                views[name][slots[here], rows[here]] = columns[name][here]

    def _segment(self, index: int) -> Segment:
        if index not in self._segments:
            path = self._folder / f"{self.name}-{index:06d}.arrow"
            facts = {"writer": self.name, "stream_ids": ",".join(map(str, self.streams))}
            self._forget_removed()
            self._segments[index] = self._used_again(path) or Segment.create(
                path, self.schema, streams=len(self.streams), rows=self._rows, metadata=facts
            )
            self._unannounced.add(index)
        return self._segments[index]

    def _used_again(self, path: Path) -> Segment | None:
        """A segment that the shard released, under its new name; None: there is none."""
        for free in sorted(self._folder.glob(f"{self.name}.free-*")):
            if held(free):  # somebody who reads the live store has it in his hands
                free.unlink()
                continue
            former = self._passed.pop(int(free.suffix.rpartition("-")[2]), None)
            segment = former or Segment.open(free, writable=True)
            segment.columns["mask"][:] = 0  # whoever looks at a live file takes rows that are not written for such
            free.rename(path)
            segment.path = path
            return segment
        return None

    def _message(self, ends: np.ndarray, version: int) -> Commit:
        touched = range(int(self._begins.min()) // self._rows, (int(ends.max()) - 1) // self._rows + 1)
        segments = [(index, self._segments[index]) for index in touched if index in self._segments]
        return Commit(
            writer=self.name,
            streams=self.streams,
            begins=tuple(self._begins.tolist()),
            ends=tuple(ends.tolist()),
            version=int(version),
            segments=tuple(SegmentInfo(index, str(segment.path), segment.size) for index, segment in segments),
            rows_per_segment=self._rows,
            sequence=self._sequence,
            changes={column: tuple(changes) for column, changes in self._changes.items()},
        )

    def _drop_full(self) -> None:
        """Let go of segments that every slot has passed."""
        oldest = int(self._next.min()) // self._rows
        for index in [index for index in self._segments if index < oldest]:
            self._passed[index] = self._segments.pop(index)

    def _forget_removed(self) -> None:
        """Unmap the segments that the shard removed: their memory is not free before."""
        for index, segment in list(self._passed.items()):
            if not segment.path.exists() and not (self._folder / f"{self.name}.free-{index:06d}").exists():
                self._passed.pop(index).close()


def _check(schema: Schema, watch: Sequence[str]) -> None:
    if "mask" not in schema.columns:
        raise SchemaError('rows need a column "mask"; build the schema with Schema.of_rows')
    for name in watch:
        if name not in schema.columns or schema.columns[name].shape:
            got = schema.columns.get(name, "no such column")
            raise SchemaError(f'column "{name}" is to be watched for changes: got {got}, wanted a scalar')


def check_open(schema: Schema, columns: Mapping[str, np.ndarray], slots: int) -> None:
    """Refuse what cannot be known of rows before they are decided.

    Raises:
        SchemaError: an observation column is missing, another is unknown or has another dtype or shape, or a mask is
            not 0.
    """
    schema.check(columns, slots)
    missing = [name for name in schema.observation_columns if name not in columns]
    if missing:
        raise SchemaError(f"the open row lacks {', '.join(missing)}; got {', '.join(columns)}")
    if "mask" in columns and columns["mask"].any():
        raise SchemaError("the open row has mask 1, wanted 0: it has no decision yet")
