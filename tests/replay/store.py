"""Rows that say where they come from, for the tests of the store.

`CONTRAIL_THOROUGH=20 pytest tests/replay` looks at 20 times as many examples as usual.
"""

import os
from pathlib import Path

import numpy as np
from hypothesis import settings

from replay import Column, Commit, Schema, SegmentInfo, Writer

SCHEMA = Schema.of_rows(
    {"observation": Column("uint8", (20, 30)), "observation.place": Column("int64", (2,))},
    Column("int64"),
    {"core_state": Column("float32", (3,)), "task": Column("int64")},
)
PERIOD = 4096
CHANCES = {"episode": 0.2, "task": 0.08}  # of a change from one row to the next
CHANGES = {name: np.random.default_rng(7).random((16, PERIOD)) < chance for name, chance in CHANCES.items()}
VALUES = {name: changes.cumsum(axis=1) for name, changes in CHANGES.items()}


def examples(usual: int) -> settings:
    """So many examples of a property, or more."""
    return settings(max_examples=usual * int(os.environ.get("CONTRAIL_THOROUGH", "1")))


def rows_of(streams: np.ndarray, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Whole rows number `numbers` of `streams`: every column is a function of (stream, number)."""
    streams, numbers = np.broadcast_arrays(streams, numbers)
    code = streams * 1000 + numbers
    columns = {}
    for place, (name, column) in enumerate(SCHEMA.columns.items()):
        value = (code * (place + 3) + place) % 251
        columns[name] = np.broadcast_to(
            value.reshape(*value.shape, *(1,) * len(column.shape)), (*value.shape, *column.shape)
        ).astype(column.dtype)
    for name, values in VALUES.items():
        columns[name] = values[streams % 16, numbers % PERIOD]
    columns["observation.place"] = np.stack([streams, numbers], axis=-1)
    columns["mask"] = np.ones(streams.shape, np.uint8)
    return columns


def run_begins(streams: np.ndarray, rows: np.ndarray, within: tuple[str, ...]) -> np.ndarray:
    """The first row of the run without a change in these columns that each row (n,) is in."""
    begins = np.zeros(len(rows), np.int64)
    for place, (stream, row) in enumerate(zip(streams.tolist(), rows.tolist(), strict=True)):
        changed = [np.flatnonzero(CHANGES[name][stream % 16, 1 : row + 1]) + 1 for name in within]
        begins[place] = np.concatenate([[0], *changed]).max()
    return begins


def assert_rows(batch: dict[str, np.ndarray], lead: int, within: tuple[str, ...] = ()) -> None:
    """Every row of every window is what its stream wrote, the mask apart; windows (n, rows), whatever the arity."""
    batch = {name: values.reshape(-1, *values.shape[batch["stream"].ndim :]) for name, values in batch.items()}
    window = batch["mask"].shape[1] - lead
    floors = run_begins(batch["stream"], batch["start"], within)
    rows = np.maximum(batch["start"][:, None] + np.arange(-lead, window), floors[:, None])
    wanted = rows_of(np.broadcast_to(batch["stream"][:, None], rows.shape), rows)
    decided = batch["mask"] == 1
    for name in SCHEMA.columns.keys() - {"mask"}:
        known = name.startswith("observation") or name in ("episode", "step")
        where = np.ones_like(decided) if known else decided
        np.testing.assert_array_equal(batch[name][where], wanted[name][where], err_msg=name)
    assert not batch["mask"][:, :lead].any()
    for name in within:  # all rows of such windows are complete
        assert (batch[name] == batch[name][:, :1]).all()


class Hand:
    """A writer whose rows are `rows_of`, driven a few rows at a time."""

    def __init__(
        self,
        name: str,
        streams: list[int],
        folder: Path,
        commit,
        *,
        rows_per_segment: int = 8,
        watch: tuple[str, ...] = (),
    ) -> None:
        self.streams, self.next = np.array(streams), np.zeros(len(streams), np.int64)
        self.sent: list[Commit] = []
        facts = {"streams": streams, "folder": folder, "rows_per_segment": rows_per_segment}
        self.writer = Writer(name, SCHEMA, **facts, commit=_noted(self.sent, commit), watch=watch)

    def rows(self, *counts: int) -> None:
        """Append so many rows to each slot, in turns."""
        for row in range(max(counts)):
            slots = np.array([slot for slot, count in enumerate(counts) if row < count])
            self.append(None if len(slots) == len(counts) else slots)

    def append(self, slots: np.ndarray | None = None) -> None:
        chosen = np.arange(len(self.streams)) if slots is None else slots
        self.writer.append(rows_of(self.streams[chosen], self.next[chosen]), slots)
        self.next[chosen] += 1

    def block(self, rows: int, *, version: int = 0) -> None:
        """Append `rows` rows to every stream and commit them with the open row."""
        for _ in range(rows):
            self.append()
        self.commit(version=version)

    def commit(self, *, version: int = 0) -> None:
        row = rows_of(self.streams, self.next)
        known = ["observation", "observation.place", "episode", "step"]
        self.writer.commit({name: row[name] for name in known}, version=version)


def _noted(sent: list[Commit], commit):
    """`commit`, and a note of what it was given. No method of the hand: its files are closed as soon as it goes."""

    def note(told: Commit) -> None:
        sent.append(told)
        commit(told)

    return note


class Messages:
    """What a writer would tell a shard, without rows: a shard never looks at them. Its segments are empty files.

    Args:
        folder: of the files; None: there are none.
    """

    def __init__(
        self,
        name: str,
        streams: list[int],
        commit,
        *,
        folder: Path | None = None,
        rows_per_segment: int = 8,
        watch: tuple[str, ...] = (),
    ) -> None:
        self.name, self.streams, self.next = name, streams, np.zeros(len(streams), np.int64)
        self.sent: list[Commit] = []
        self._commit, self._folder, self._rows, self._watch = commit, folder, rows_per_segment, watch
        self._begins, self._made = self.next.copy(), 0

    def block(self, *counts: int, version: int = 0) -> None:
        """Tell of so many more rows of each stream, or of all."""
        begins, self.next = self._begins, self.next + np.array(counts)
        last = int(self.next.max()) // self._rows
        paths = [(self._folder or Path("/nowhere")) / f"{self.name}-{index:06d}.arrow" for index in range(last + 1)]
        while self._folder and self._made <= last:
            paths[self._made].touch()
            self._made += 1
        commit = Commit(
            writer=self.name,
            streams=tuple(self.streams),
            begins=tuple(begins.tolist()),
            ends=tuple((self.next + 1).tolist()),
            version=version,
            segments=tuple(
                SegmentInfo(index, str(paths[index]), 100) for index in range(int(begins.min()) // self._rows, last + 1)
            ),
            rows_per_segment=self._rows,
            sequence=len(self.sent),
            changes={name: self._changes(name, begins) for name in self._watch},
        )
        self.sent.append(commit)
        self._commit(commit)
        self._begins = self.next.copy()

    def _changes(self, name: str, begins: np.ndarray) -> tuple[tuple[int, int], ...]:
        spans = zip(self.streams, np.maximum(begins, 1).tolist(), self.next.tolist(), strict=True)
        found = [np.flatnonzero(CHANGES[name][stream % 16, begin:end]) + begin for stream, begin, end in spans]
        return tuple((slot, row) for slot, rows in enumerate(found) for row in rows.tolist())
