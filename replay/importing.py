"""Imported stores: rows from elsewhere, completed, renumbered and written as archived segments."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replay.archiving import Codec, write_archived
from replay.completion import Completion, complete_schema
from replay.pieces import ExchangeError, Piece, by_stream, converted
from replay.schema import Column, Schema

SEGMENT_BYTES = 64 << 20
"""Most bytes of rows in one segment, unless one row has more."""

HELD_BYTES = 8 * SEGMENT_BYTES
"""Rows held in memory for streams that come interleaved; beyond, their segments become smaller."""


@dataclass(frozen=True)
class Imported:
    """What an import amounted to.

    Attributes:
        schema: of the store's rows.
        rows: all of them.
        decisions: those with mask 1.
        streams: how many there are, numbered from 0.
        files: how many segments hold them.
    """

    schema: Schema
    rows: int
    decisions: int
    streams: int
    files: int


def import_pieces(
    pieces: Iterable[Piece], store: Path | str, *, gamma: float = 0.99, codec: Codec = "none"
) -> Imported:
    """Write a store, `store`/log/WRITER-000000.arrow and so on; it appears whole or not at all.

    Streams are numbered anew in the order in which they appear, each with a writer of its own, and so are their rows,
    from 0. Memory stays bounded whatever the order of streams, as long as each one's rows come in order.

    Args:
        pieces: of one or several files with the same columns.
        store: a folder that does not exist yet, or is empty.
        gamma: discount of the column `discounted_return` where it has to be computed.
        codec: of the segments; uncompressed ones can be mapped into memory.

    Raises:
        ExchangeError: the folder exists, there are no rows, or some cannot be right; nothing is left behind.
        SchemaError: a column has a name or a shape that none can have.
    """
    store = Path(store)
    if store.exists() and not (store.is_dir() and not any(store.iterdir())):
        raise ExchangeError(f"{store} exists already: choose a folder that does not, imports are never mixed")
    partial = store.with_name(f".{store.name}.{os.getpid()}")
    try:
        (partial / "log").mkdir(parents=True)
        importer = _Importer(partial / "log", gamma, codec)
        for piece in pieces:
            importer.add(piece)
        imported = importer.finish()
        if store.exists():
            store.rmdir()
        partial.replace(store)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return imported


class _Importer:
    """Deals rows out to their streams and writes what has become a segment."""

    def __init__(self, log: Path, gamma: float, codec: Codec) -> None:
        self._log, self._gamma, self._codec = log, gamma, codec
        self._schema: Schema | None = None
        self._given: frozenset[str] = frozenset()
        self._streams: dict[tuple[str, int], _Stream] = {}
        self._rows = self._decisions = 0

    def add(self, piece: Piece) -> None:
        """Take over a piece's rows; its arrays are not kept."""
        if not piece.rows:
            return
        if self._schema is None:
            self._schema, self._given = complete_schema(piece), frozenset(piece.columns)
        columns = self._checked(piece, self._schema)
        for (writer, number), rows in by_stream(piece):
            stream = self._stream(writer, number)
            mine = {name: _copy(values, rows) for name, values in columns.items()}
            self._decisions += stream.add(mine, piece, rows)
        self._rows += piece.rows
        self._write_out()

    def finish(self) -> Imported:
        """Write the rest."""
        if self._schema is None:
            raise ExchangeError("there are no rows to import")
        for stream in self._streams.values():
            stream.write(least=1)
        files = sum(stream.index for stream in self._streams.values())
        return Imported(self._schema, self._rows, self._decisions, len(self._streams), files)

    def _checked(self, piece: Piece, schema: Schema) -> dict[str, np.ndarray]:
        """The piece's columns in the schema's dtypes, and its row numbers."""
        if set(piece.columns) != self._given:
            other = ", ".join(sorted(set(piece.columns) ^ self._given))
            raise ExchangeError(f"{piece.source} and the rows before it do not have the same columns: {other}")
        wanted = {name: schema.columns.get(name, Column("int64")) for name in piece.columns}
        return {name: converted(values, name, wanted[name], piece) for name, values in piece.columns.items()}

    def _stream(self, writer: str, number: int) -> "_Stream":
        assert self._schema is not None
        if (writer, number) not in self._streams:
            new = len(self._streams)
            facts = {"source": f"{writer}/{number}"} if writer else {}
            target = _Target(self._log, self._schema, self._codec, f"imported-{new}", new, facts)
            self._streams[writer, number] = _Stream(target, Completion(new, self._gamma))
        return self._streams[writer, number]

    def _write_out(self) -> None:
        """Write whole segments, and smaller ones of the fullest streams while too much is held."""
        for stream in self._streams.values():
            stream.write(least=stream.segment_rows)
        while sum(stream.held_bytes for stream in self._streams.values()) > HELD_BYTES:
            fullest = max((s for s in self._streams.values() if not s.index), key=lambda s: s.held, default=None)
            if fullest is None or not fullest.held:
                return
            fullest.segment_rows = fullest.held
            fullest.write(least=1)


@dataclass(frozen=True)
class _Target:
    """Where a stream's segments go."""

    log: Path
    schema: Schema
    codec: Codec
    writer: str
    stream: int
    facts: dict[str, str]


class _Stream:
    """One stream on its way into segments.

    Attributes:
        segment_rows: rows of a segment; fixed once the first one is written.
        index: segments written.
        held: rows waiting.
    """

    def __init__(self, target: _Target, completion: Completion) -> None:
        self._target, self._completion = target, completion
        self.segment_rows = max(1, SEGMENT_BYTES // target.schema.row_bytes)
        self.index = self.held = 0
        self._waiting: list[dict[str, np.ndarray]] = []
        self._last: int | None = None  # the latest row's number in the file

    @property
    def held_bytes(self) -> int:
        """Bytes of the rows waiting."""
        return self.held * self._target.schema.row_bytes

    def add(self, columns: dict[str, np.ndarray], piece: Piece, rows: np.ndarray) -> int:
        """Complete and hold these rows of a piece; how many of them are decisions."""
        numbers = columns.pop("row", None)
        if numbers is not None:
            self._check_order(numbers, piece, rows)
        columns.pop("stream", None)
        whole = self._completion.complete(columns, lambda row: piece.place(int(rows[row])))
        self._waiting.append({name: whole[name] for name in self._target.schema.columns})
        self.held += len(rows)
        return int(np.count_nonzero(whole["mask"]))

    def write(self, *, least: int) -> None:
        """Write segments while at least so many rows wait."""
        if self.held < least:
            return
        names = self._target.schema.columns
        rows = {name: np.concatenate([part[name] for part in self._waiting]) for name in names}
        done = 0
        while self.held >= least and self.held:
            count = min(self.held, self.segment_rows)
            self._write_segment({name: values[done : done + count] for name, values in rows.items()}, count)
            done, self.held, self.index = done + count, self.held - count, self.index + 1
        self._waiting = [{name: values[done:].copy() for name, values in rows.items()}] if self.held else []

    def _write_segment(self, columns: dict[str, np.ndarray], count: int) -> None:
        target, first = self._target, self.index * self.segment_rows
        place = {"stream": np.full(count, target.stream), "row": np.arange(first, first + count)}
        facts = {
            "writer": target.writer,
            "index": str(self.index),
            "stream_ids": str(target.stream),
            "streams": "1",
            "rows": str(self.segment_rows),
            **target.facts,
        }
        path = target.log / f"{target.writer}-{self.index:06d}.arrow"
        write_archived(path, target.schema, {**place, **columns}, counts=[count], facts=facts, codec=target.codec)

    def _check_order(self, numbers: np.ndarray, piece: Piece, rows: np.ndarray) -> None:
        before = np.concatenate([[numbers[0] - 1 if self._last is None else self._last], numbers[:-1]])
        if (wrong := numbers != before + 1).any():
            row = int(np.argmax(wrong))
            raise ExchangeError(
                f"{piece.place(int(rows[row]))}: row {numbers[row]} of its stream comes after row {before[row]}: sort "
                "the file by writer, stream and row, and leave none out"
            )
        self._last = int(numbers[-1])


def _copy(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """These rows, copied: a view would keep the whole piece in memory."""
    together = rows[-1] - rows[0] + 1 == len(rows)
    return values[rows[0] : rows[-1] + 1].copy() if together else values[rows]
