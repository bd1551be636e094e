"""Writing from another machine: a `Sender` where the actor is, a `Receiver` where the segments are.

Who owns what: the sender owns rows until a commit has returned; the receiver's writers own the segments. What is lost
when one dies: with the sender, rows after its last commit; with the receiver nothing, since the sender begins again
under another name, and sends those rows once more that the shard does not know.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from replay.messages import Commit
from replay.schema import Schema
from replay.shard import CommitLost, Shard
from replay.table import watched
from replay.writer import Writer, check_open

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a sender's streams grew by between two commits, compact: nothing but these rows travels.

    Args:
        writer: the sender's name.
        sequence: counts its trajectories.
        streams: ids, in slot order.
        rows_per_segment: of the segments that the rows go to.
        parts: in order: slots and columns; slots None: (slots, rows, *shape) of all of them, else (n, *shape) of those.
        open_columns: what is known of the rows not decided yet, (slots, *shape).
        version: of the weights that decided the rows.
    """

    writer: str
    sequence: int
    streams: tuple[int, ...]
    rows_per_segment: int
    parts: tuple[tuple[np.ndarray | None, Columns], ...]
    open_columns: Columns
    version: int


class Sender:
    """A writer whose segments are elsewhere: rows are kept until a commit, and then sent together.

    Args:
        name: unique to this incarnation.
        schema: of the rows.
        streams: id of the stream in each slot.
        rows_per_segment: of the segments on the other side.
        send: takes a Trajectory; when it raises, the next commit sends the same one first.

    Raises:
        SchemaError: as `Writer`, at once and not on the other side.
    """

    def __init__(
        self,
        name: str,
        schema: Schema,
        *,
        streams: Sequence[int],
        rows_per_segment: int,
        send: Callable[[Trajectory], object],
    ) -> None:
        self.name, self.schema, self.streams = name, schema, tuple(int(stream) for stream in streams)
        self._rows, self._send = rows_per_segment, send
        self._parts: list[tuple[np.ndarray | None, Columns]] = []
        self._together: list[Columns] = []
        self._unsent: list[Trajectory] = []
        self._sequence = self._lives = 0

    def append(self, columns: Mapping[str, np.ndarray], slots: np.ndarray | None = None) -> None:
        """Keep one whole row of each slot, as `Writer.append`."""
        self.schema.check_complete(columns, len(self.streams) if slots is None else len(slots))
        row = {name: np.array(values) for name, values in columns.items()}  # a copy: the caller uses its own again
        if slots is None:
            self._together.append(row)
        else:
            self._stack()
            self._parts.append((slots.copy(), row))

    def commit(self, open_columns: Mapping[str, np.ndarray], *, version: int) -> None:
        """Send everything since the last commit, as `Writer.commit`."""
        check_open(self.schema, open_columns, len(self.streams))
        self._stack()
        # What was sent once is not changed afterwards: it may have arrived though nobody said so.
        self._unsent.append(self._trajectory(open_columns, version))
        self._parts, self._sequence = [], self._sequence + 1
        while self._unsent:
            try:
                self._send(self._unsent[0])
            except CommitLost:
                self._begin_again()
                self._send(self._unsent[0])
            del self._unsent[0]

    def close(self) -> None:
        """Forget rows that were not committed."""
        self._parts, self._together, self._unsent = [], [], []

    def _begin_again(self) -> None:
        """The other side has forgotten this writer: it died. A new one takes the streams over."""
        self._lives, self._sequence = self._lives + 1, len(self._unsent)
        self._unsent = [
            replace(trajectory, writer=f"{self.name}.{self._lives}", sequence=sequence)
            for sequence, trajectory in enumerate(self._unsent)
        ]

    def _stack(self) -> None:
        if self._together:
            names = self._together[0]
            block = {name: np.stack([row[name] for row in self._together], axis=1) for name in names}
            self._parts.append((None, block))
            self._together = []

    def _trajectory(self, open_columns: Mapping[str, np.ndarray], version: int) -> Trajectory:
        return Trajectory(
            writer=f"{self.name}.{self._lives}" if self._lives else self.name,
            sequence=self._sequence,
            streams=self.streams,
            rows_per_segment=self._rows,
            parts=tuple(self._parts),
            open_columns={name: np.array(values) for name, values in open_columns.items()},
            version=version,
        )


class Receiver:
    """Writes what senders send, on the machine of the shard.

    Args:
        schema: of the rows.
        folder: of the segments.
        shard: takes the commits, each with the number of its trajectory; it knows which of them came, also when this
            receiver is younger than they are.
    """

    def __init__(self, schema: Schema, folder: Path | str, shard: Shard) -> None:
        self._schema, self._folder, self._shard = schema, Path(folder), shard
        self._writers: dict[str, Writer] = {}
        self._expected: dict[str, int] = {}  # number of the next trajectory, by sender
        self._appended: dict[str, int] = {}

    def receive(self, trajectory: Trajectory) -> None:
        """Append and commit; one that was committed before, or whose sender has been replaced, is ignored.

        Raises:
            CommitLost: one before it never came, or its writer is not known any more.
            StoreFull: there is no room for its rows; the sender has to begin again.
        """
        name, sequence = trajectory.writer, trajectory.sequence
        if not self._shard.gate.passes(name, trajectory.streams, sequence):
            return
        expected, known = self._expected.get(name, 0), name not in self._expected or name in self._writers
        if sequence != expected or not known:
            raise CommitLost(f"{name}: trajectory {sequence} came, wanted {expected}: begin again under another name")
        writer = self._writers.get(name) or self._welcome(trajectory)
        if self._appended.get(name, -1) < sequence:
            self._append(writer, trajectory)
        writer.commit(trajectory.open_columns, version=trajectory.version)
        self._expected[name] = sequence + 1

    def close(self) -> None:
        """Close all writers."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def leave(self, streams: Sequence[int]) -> None:
        """Close the writers of streams that go to others."""
        for name, former in list(self._writers.items()):
            if set(former.streams) & set(streams):
                former.close()
                del self._writers[name]

    def _commit(self, commit: Commit) -> None:
        """Commit under the trajectory's number: the writer counts once more where a commit failed and is repeated."""
        self._shard.commit(replace(commit, sequence=self._expected[commit.writer]))

    def _append(self, writer: Writer, trajectory: Trajectory) -> None:
        try:
            for slots, columns in trajectory.parts:
                if slots is None:
                    writer.extend(columns)
                else:
                    writer.append(columns, slots)
        except BaseException:
            # Some rows are there and some are not: they must not be written twice.
            self._writers.pop(writer.name).close()
            raise
        self._appended[writer.name] = trajectory.sequence

    def _welcome(self, trajectory: Trajectory) -> Writer:
        """The writer of a new sender; an earlier one of the same streams is closed."""
        try:
            writer = Writer(
                trajectory.writer,
                self._schema,
                streams=trajectory.streams,
                folder=self._folder,
                rows_per_segment=trajectory.rows_per_segment,
                commit=self._commit,
                watch=watched(self._shard.tables),
            )
        except FileExistsError as error:  # a receiver before this one knew it
            raise CommitLost(f"{trajectory.writer}: {error}") from error
        self.leave(trajectory.streams)
        self._writers[trajectory.writer] = writer
        self._expected[trajectory.writer] = 0
        return writer
