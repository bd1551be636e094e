"""A writer: puts rows into its segments and tells a shard which ranges can be read.

Who owns what: a writer owns its segments' bytes until they are committed and their names until
then; afterwards the shard decides when they go. What is lost when it dies: rows after its last
commit.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from replay.messages import Commit, SegmentInfo
from replay.schema import Schema, SchemaError
from replay.segment import Segment


class Writer:
    """Rows of several streams, appended in place to memory-mapped segments.

    Args:
        name: unique to this incarnation; a restarted actor takes another.
        schema: of the rows.
        streams: id of the stream in each slot.
        folder: of the segments, shared with the shard and samplers; made if missing.
        rows_per_segment: rows of each stream in one segment.
        commit: takes each Commit; when it raises, the next commit covers the same rows again.

    Raises:
        FileExistsError: the folder holds segments of a writer of this name.
        SchemaError: the schema has no mask.
    """

    def __init__(
        self,
        name: str,
        schema: Schema,
        *,
        streams: Sequence[int],
        folder: Path | str,
        rows_per_segment: int,
        commit: Callable[[Commit], None],
    ) -> None:
        if "mask" not in schema.columns:
            raise SchemaError('rows need a column "mask"; build the schema with Schema.of_rows')
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
        self._unannounced: set[int] = set()
        self._sequence, self._checked = 0, False
        self._together = 0  # the open row when it is the same in every slot, else -1

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
        if slots is None and self._together >= 0:
            self._write_together(columns, self._order)
            self._together += 1
            self._next += 1
            return
        chosen = np.arange(len(self.streams)) if slots is None else slots
        self._write_apart(columns, self._order, chosen)
        self._next[chosen] += 1
        self._together = int(self._next[0]) if (self._next == self._next[0]).all() else -1

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
        self._check_open(open_columns)
        order = [name for name in open_columns if name != "mask"]
        if self._together >= 0:
            self._write_together(open_columns, order)
        else:
            self._write_apart(open_columns, order, np.arange(len(self.streams)))
        ends = self._next + 1
        message = self._message(ends, version)
        self._sequence += 1
        self._send(message)
        self._begins = ends - 1
        self._unannounced -= {segment.index for segment in message.segments}
        self._drop_full()

    def close(self) -> None:
        """Drop the segments, and unlink those that no commit has named."""
        for index, segment in self._segments.items():
            segment.close()
            if index in self._unannounced:
                segment.path.unlink(missing_ok=True)
        self._segments, self._unannounced = {}, set()

    def _check_open(self, columns: Mapping[str, np.ndarray]) -> None:
        self.schema.check(columns, len(self.streams))
        missing = [name for name in self.schema.observation_columns if name not in columns]
        if missing:
            raise SchemaError(f"the open row lacks {', '.join(missing)}; got {', '.join(columns)}")
        if "mask" in columns and columns["mask"].any():
            raise SchemaError("the open row has mask 1, wanted 0: it has no decision yet")

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
            facts = {"writer": self.name, "index": str(index), "stream_ids": ",".join(map(str, self.streams))}
            self._segments[index] = Segment.create(
                path, self.schema, streams=len(self.streams), rows=self._rows, metadata=facts
            )
            self._unannounced.add(index)
        return self._segments[index]

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
        )

    def _drop_full(self) -> None:
        """Let go of segments that every slot has passed."""
        oldest = int(self._next.min()) // self._rows
        for index in [index for index in self._segments if index < oldest]:
            self._segments.pop(index).close()
