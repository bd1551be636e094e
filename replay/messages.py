"""What passes between writers, shards and samplers: a few numbers each, never rows."""

from dataclasses import dataclass, field

import numpy as np


class NotReady(RuntimeError):
    """A draw that cannot be answered yet; says which table lacks what."""


@dataclass(frozen=True)
class SegmentInfo:
    """Where a segment is.

    Args:
        index: its place among its writer's segments, from 0.
        path: of the file.
        size: of the file, bytes.
        archived: whether the file is the archive's, which alone removes it.
    """

    index: int
    path: str
    size: int = 0
    archived: bool = False


@dataclass(frozen=True)
class Commit:
    """Rows [begin, end) of each stream have become readable.

    The last of them is open: its observation is known, its decision is not. The first is the
    row that was open before, now complete. Row n of a stream lives in its writer's segment
    n // rows_per_segment at offset n % rows_per_segment, in the slot that is the stream's place
    in `streams`.

    Args:
        writer: its name, unique to one incarnation of one writer.
        streams: ids, in slot order.
        begins: first row of each.
        ends: one past the open row of each.
        version: of the weights that decided the rows.
        segments: those that hold these rows; a shard may know some already.
        rows_per_segment: rows of each stream in a segment.
        sequence: counts the writer's commits; a number seen before is ignored.
        changes: by column that a table's windows may not cross, the (slot, row) whose value differs from the row
            before; complete rows only.
    """

    writer: str
    streams: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    version: int
    segments: tuple[SegmentInfo, ...]
    rows_per_segment: int
    sequence: int
    changes: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Items:
    """References to the windows of one table in a draw; arrays (windows,), int64 unless said otherwise.

    Args:
        streams: id of each window's stream.
        starts: its first row, not counting the lead.
        writers: place of its writer in `Draw.writers`. A stream that outlived an actor has two writers, and one draw
            may hold windows of both.
        slots: of the stream in that writer.
        kept: leading rows that keep their recorded mask; the others belong to the next window or were open when the
            draw was formed, and are handed out with mask 0.
        floors: rows before it are not read: the lead repeats this row instead.
        ids: of the windows, by which priorities are sent back.
        probabilities: float64, with which each was chosen, per pick.
    """

    streams: np.ndarray
    starts: np.ndarray
    writers: np.ndarray
    slots: np.ndarray
    kept: np.ndarray
    floors: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray

    def __reduce__(self) -> tuple:
        # One array costs a third of eight to pickle and to unpickle.
        *numbers, probabilities = vars(self).values()
        return _items_of, (np.concatenate([*numbers, probabilities.view(np.int64)]),)


def _items_of(numbers: np.ndarray) -> Items:
    *fields, probabilities = numbers.reshape(8, -1)
    return Items(*(*fields, probabilities.view(np.float64)))


@dataclass(frozen=True)
class Draw:
    """One rank's share of one shard's answer to one learner step.

    Args:
        items: by table.
        writers: names that `Items.writers` counts.
        rows_per_segment: of each of them, in that order.
        segments: path by (writer, index), for every segment that the items touch.
    """

    items: dict[str, Items]
    writers: tuple[str, ...]
    rows_per_segment: tuple[int, ...]
    segments: dict[tuple[str, int], str]
