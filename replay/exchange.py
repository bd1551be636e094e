"""Exchange of stored rows with the rest of the world: whole stores to files and back.

Inside, rows travel as Arrow record batches with the columns "writer" (string), "stream" and "row" (int64), and then the
schema's columns as in archived segments. docs/exchange.md says what the files look like to others.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa

from replay.archiving import Codec
from replay.importing import Imported, import_pieces
from replay.jsonlines import read_jsonlines, write_jsonlines
from replay.parquet import read_parquet, write_parquet
from replay.pieces import PLACE, ExchangeError, Piece, from_json, piece_of
from replay.schema import Column, Schema

__all__ = [
    "Codec",
    "ExchangeError",
    "Format",
    "Imported",
    "export_rows",
    "format_of",
    "import_file",
    "import_pieces",
    "pieces_of",
    "read_columns",
]

Format = Literal["parquet", "jsonl"]

SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}

READ = {"parquet": read_parquet, "jsonl": read_jsonlines}

WRITE = {"parquet": write_parquet, "jsonl": write_jsonlines}


def format_of(path: Path) -> Format | None:
    """The format that a file's suffix stands for, or that of the files in a folder; None: neither says."""
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    within = {SUFFIXES[file.suffix] for file in path.glob("*") if file.suffix in SUFFIXES} if path.is_dir() else set()
    return within.pop() if len(within) == 1 else None


def export_rows(batches: Iterable[pa.RecordBatch], path: Path | str, file_format: Format) -> int:
    """Write rows to a file, which appears whole or not at all; how many they are.

    Args:
        batches: with the columns writer, stream, row and a schema's, e.g. of a store's dataset.
        path: of a file that does not exist yet.
        file_format: how it is written.

    Raises:
        ExchangeError: the file exists, or there are no rows; nothing is left behind.
    """
    path = Path(path)
    if path.exists():
        raise ExchangeError(f"{path} exists already: choose another name, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        rows = WRITE[file_format]((batch for batch in batches if len(batch)), partial)
        if not rows:
            raise ExchangeError(f"there are no rows to write to {path}")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def import_file(
    path: Path | str,
    store: Path | str,
    file_format: Format,
    *,
    declared: Mapping[str, Column] | None = None,
    ignore: tuple[str, ...] = (),
    gamma: float = 0.99,
    codec: Codec = "none",
) -> Imported:
    """Make a store of a file's rows, or of those of all files in a folder, in the order of their names.

    Args:
        path: of the file or folder.
        store: a folder that does not exist yet.
        file_format: how the file was written.
        declared: what columns are, in place of what the file says or what they look like.
        ignore: columns to leave out.
        gamma: discount of the column `discounted_return`, where it has to be computed.
        codec: of the store's segments.

    Raises:
        ExchangeError: rows that cannot be imported; names the file, the column and the row.
        SchemaError: a column that no row can have.
    """
    files = _files(Path(path), file_format)
    pieces = (piece for file in files for piece in READ[file_format](file, declared or {}, ignore))
    return import_pieces(_checked(pieces, declared or {}), store, gamma=gamma, codec=codec)


def pieces_of(batches: Iterable[pa.RecordBatch], source: str) -> Iterator[Piece]:
    """Record batches as an import wants them, e.g. those of a dataset over several stores.

    Args:
        batches: with the columns writer, stream, row and a schema's; their types are taken as they are.
        source: how errors call them.
    """
    first = 0
    for batch in batches:
        schema = Schema.from_arrow(pa.schema([field for field in batch.schema if field.name not in PLACE]))
        yield piece_of(batch, source, first, schema.columns)
        first += len(batch)


def read_columns(path: Path) -> dict[str, Column]:
    """Columns described by a file, {"columns": {"observation": {"dtype": "uint8", "shape": [84, 84]}}}.

    Raises:
        ExchangeError: the file is missing or says something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExchangeError(f"{path} cannot be read ({error})") from error
    return from_json(value, str(path))


def _files(path: Path, file_format: Format) -> list[Path]:
    if not path.exists():
        raise ExchangeError(f"there is no file {path}")
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.glob("*") if SUFFIXES.get(file.suffix) == file_format)
    if not files:
        raise ExchangeError(f"{path} holds no {file_format} files; formats are {', '.join(get_args(Format))}")
    return files


def _checked(pieces: Iterable[Piece], declared: Mapping[str, Column]) -> Iterator[Piece]:
    """The pieces, all of which must have the columns that were declared by hand."""
    for piece in pieces:
        if absent := [name for name in declared if name not in piece.columns]:
            raise ExchangeError(f"{piece.source} has no column {', '.join(absent)}: it has {', '.join(piece.columns)}")
        yield piece
