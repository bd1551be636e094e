"""The segments that a reader has open: mapped where that will do, unpacked where they are compressed; not too many."""

import os
from collections.abc import Mapping
from pathlib import Path

from replay.gather import Columns
from replay.schema import Schema, SchemaError
from replay.segment import Segment

UNPACKED_BYTES = 2 << 30
"""Of compressed segments in a reader's memory, unless it asks for another bound."""

CALLS_PER_SWEEP = 16


class Mapped:
    """The segments of one shard that a reader has open.

    A live segment, or an archived one that is not compressed, costs no memory of the reader's: it is mapped until its
    file is gone. A compressed one is unpacked as a whole when something of it is read, and stays in memory until others
    were read more lately and the bound is reached.

    Args:
        schema: of the rows.
        unpacked_bytes: of compressed segments that stay in memory; those of one call are held beyond it.

    Attributes:
        unpacked: bytes of compressed segments that are in memory now.
    """

    def __init__(self, schema: Schema, unpacked_bytes: int = UNPACKED_BYTES) -> None:
        self._schema, self._most = schema, unpacked_bytes
        self._open: dict[tuple[str, int], _Open] = {}  # the most lately read last
        self._calls = self.unpacked = 0

    def rows(self, paths: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], Columns]:
        """The columns of segments, each as one sequence of rows (streams * rows, *shape), in the order of the schema.

        Args:
            paths: of the segments' files, by writer and index.

        Raises:
            SchemaError: a segment's columns are not the reader's; names the first one.
            FileNotFoundError, CorruptSegment: as `Segment.open`.
        """
        if self._calls % CALLS_PER_SWEEP == 0:
            for key in [key for key, opened in self._open.items() if not os.path.exists(opened.path)]:  # noqa: PTH110
                self._close(key)
        self._calls += 1
        for key, path in paths.items():
            opened = self._open.pop(key, None) or self._opened(path)
            self._open[key] = opened
        self._make_room(len(paths))
        return {key: self._open[key].rows for key in paths}

    def close(self) -> None:
        """Let go of all; arrays that were handed out stay readable."""
        for key in list(self._open):
            self._close(key)

    def _opened(self, path: str) -> "_Open":
        segment = Segment.open(path)
        if segment.schema != self._schema:
            raise SchemaError(_difference(path, segment.schema, self._schema))
        opened = _Open(segment, self._schema)
        self.unpacked += opened.unpacked
        return opened

    def _make_room(self, used: int) -> None:
        """Close the archived segments that were not read for longest, but none of the last `used`."""
        for key in list(self._open)[: len(self._open) - used]:
            if self.unpacked <= self._most:
                return
            if self._open[key].unpacked:
                self._close(key)

    def _close(self, key: tuple[str, int]) -> None:
        self.unpacked -= self._open.pop(key).unpacked


class _Open:
    """An open segment: its columns as one sequence of rows, and what they take of this process's memory."""

    def __init__(self, segment: Segment, schema: Schema) -> None:
        self.path: Path = segment.path
        columns = schema.columns.items()  # in the reader's order
        self.rows = Columns({name: segment.columns[name].reshape(-1, *column.shape) for name, column in columns})
        self.unpacked = segment.unpacked


def _difference(path: str, got: Schema, wanted: Schema) -> str:
    names = sorted(got.columns.keys() | wanted.columns.keys())
    for name in names:
        theirs, ours = got.columns.get(name), wanted.columns.get(name)
        if theirs != ours:
            return f'{path}: column "{name}" is {theirs or "missing"}, wanted {ours or "none"}'
    return f"{path}: columns differ"
