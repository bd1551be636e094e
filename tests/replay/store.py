"""Rows that say where they come from, for the tests of the store."""

from pathlib import Path

import numpy as np

from replay import Column, Commit, Schema, Writer

SCHEMA = Schema.of_rows(
    {"observation": Column("uint8", (20, 30)), "observation.place": Column("int64", (2,))},
    Column("int64"),
    {"core_state": Column("float32", (3,))},
)


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
    columns["observation.place"] = np.stack([streams, numbers], axis=-1)
    columns["mask"] = np.ones(streams.shape, np.uint8)
    return columns


class Hand:
    """A writer whose rows are `rows_of`, driven a few rows at a time."""

    def __init__(self, name: str, streams: list[int], folder: Path, commit, *, rows_per_segment: int = 8) -> None:
        self.streams, self.next = np.array(streams), np.zeros(len(streams), np.int64)
        self.sent: list[Commit] = []
        self.writer = Writer(
            name, SCHEMA, streams=streams, folder=folder, rows_per_segment=rows_per_segment, commit=self._commit
        )
        self._shard_commit = commit

    def _commit(self, commit: Commit) -> None:
        self.sent.append(commit)
        self._shard_commit(commit)

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
