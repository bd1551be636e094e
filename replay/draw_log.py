"""The log of draws: which windows every learner step was given."""

import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.draws import Formed
from replay.messages import Items
from replay.shard import Shard
from replay.table import Table

SCHEMA = pa.schema(
    [
        *[(name, pa.int64()) for name in ("start", "step", "version")],
        ("table", pa.string()),
        *[(name, pa.int64()) for name in ("shard", "place", "item")],
        ("writer", pa.string()),
        *[(name, pa.int64()) for name in ("stream", "slot", "row", "lead", "window", "kept", "floor")],
        ("probability", pa.float64()),
    ]
)
"""A row for every window of a draw. `start` counts the starts of a run; draw `step` leads to `version` step + 1;
`place` is the window's in the shard's part of the batch; `row` is its first row, of which `lead` rows in front and
`window` rows in all were read, none before `floor`; `kept` of them kept their mask."""

SECONDS, ROWS = 1.0, 20_000
PART_BYTES = 16 * 2**20
"""After which another file is begun, so that the oldest can go."""
END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last message of an Arrow stream."""


class DrawLogError(ValueError):
    """A file that is no log of draws; names it."""


class DrawLog:
    """An Arrow stream file that grows by a shard's draws.

    What was not yet written when the process dies is formed again, and then written, by `recover`.

    Args:
        folder: of the log; made if missing.
        start: which start of the run this is.
        shard: index of the shard.
        max_bytes: of this shard's files, of all starts; beyond it the oldest go. None: no bound.
    """

    def __init__(self, folder: Path | str, *, start: int, shard: int, max_bytes: int | None = None) -> None:
        self._folder, self._start, self._shard, self._max_bytes = Path(folder), start, shard, max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        self._last = max((step for path in self._former() for step in _steps(path)), default=-1)
        self._file = self._begun()
        self._waiting: list[tuple[int, Table, str, Items, np.ndarray]] = []
        self._rows, self._flushed = 0, time.monotonic()

    def write(self, shard: Shard, step: int, formed: Formed) -> None:
        """Take note of a draw; it reaches the file within a second, or with the next one.

        Raises:
            OSError: there is no room.
        """
        if step <= self._last:
            return  # a shard that recovers forms draws again
        for name, items in formed.items.items():
            places, which = np.unique(items.writers, return_inverse=True)
            writers = np.array([shard.sources.ledger(place).name for place in places.tolist()], object)[which]
            self._waiting.append((step, shard.tables[name], name, items, writers))
            self._rows += len(items.starts)
        if self._rows > ROWS or time.monotonic() - self._flushed > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            OSError: there is no room; it waits on.
        """
        if self._waiting:
            _write(self._file, self._batch().serialize())
        self._waiting, self._rows, self._flushed = [], 0, time.monotonic()
        if self._file.tell() > PART_BYTES:
            former, self._file = self._file, self._begun()
            _end(former)
            self._expire()

    def close(self) -> None:
        """Write what waits, and the end of the file; a second call does nothing."""
        if not self._file.closed:
            self.flush()
            _end(self._file)

    def _former(self) -> list[Path]:
        """This shard's files of this start."""
        return list(self._folder.glob(f"draws-{self._start}-{self._shard}-*.arrows"))

    def _begun(self) -> FileIO:
        """The next file."""
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in self._former()), default=-1)
        file = FileIO(self._folder / f"draws-{self._start}-{self._shard}-{number}.arrows", "wb")
        try:
            _write(file, SCHEMA.serialize())
        except OSError:
            file.close()
            raise
        return file

    def _expire(self) -> None:
        """Remove the oldest files while all together are too large; the newest stays."""
        paths = sorted(self._folder.glob(f"draws-*-{self._shard}-*.arrows"), key=lambda path: path.stat().st_mtime_ns)
        sizes = [path.stat().st_size for path in paths]
        for place, path in enumerate(paths[:-1]):
            if self._max_bytes is None or sum(sizes[place:]) <= self._max_bytes:
                break
            path.unlink(missing_ok=True)

    def _batch(self) -> pa.RecordBatch:
        """What waits, a row for each window."""
        counts = [len(items.starts) for *_, items, _ in self._waiting]
        steps = np.repeat([step for step, *_ in self._waiting], counts)
        tables = [table for _, table, *_ in self._waiting]
        of_items = {"item": "ids", "stream": "streams", "slot": "slots", "row": "starts", "kept": "kept"}
        of_items |= {"floor": "floors", "probability": "probabilities"}
        columns = {
            **{name: np.concatenate([getattr(w[3], field) for w in self._waiting]) for name, field in of_items.items()},
            "start": np.full(len(steps), self._start),
            "shard": np.full(len(steps), self._shard),
            "step": steps,
            "version": steps + 1,
            "table": np.repeat([name for _, _, name, *_ in self._waiting], counts),
            "writer": np.concatenate([writers for *_, writers in self._waiting]),
            "place": np.concatenate([np.arange(count) for count in counts]),
            "lead": np.repeat([table.lead for table in tables], counts),
            "window": np.repeat([table.window for table in tables], counts),
        }
        return pa.record_batch([_array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """As `pa.array`, but that imports pandas where it is installed: half a second, for which the first draw waits."""
    if kind != pa.string():
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values.astype(kind.to_pandas_dtype()))])
    texts = [text.encode() for text in values]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts)))


def read_draws(path: Path) -> pa.Table:
    """The draws of a file, up to a batch that a death cut short; none where there is no file (any more).

    Raises:
        DrawLogError: it is no log of draws.
    """
    batches: list[pa.RecordBatch] = []
    try:
        content = path.read_bytes()
        with suppress(pa.ArrowException, OSError):  # where it was torn
            batches.extend(pa.ipc.open_stream(content))
        return pa.Table.from_batches(batches).select(SCHEMA.names).cast(SCHEMA) if batches else SCHEMA.empty_table()
    except FileNotFoundError:
        return SCHEMA.empty_table()
    except KeyError as error:
        raise DrawLogError(f"{path} is no log of draws: it lacks a column ({error}); remove it") from error


def _write(file: FileIO, message: pa.Buffer | bytes) -> None:
    """Write a message of the Arrow stream whole, or not at all: what comes after half a one could not be read."""
    begin, content = file.tell(), memoryview(message)
    try:
        while content:
            content = content[file.write(content) :]
    except OSError:
        file.truncate(begin)
        file.seek(begin)
        raise


def _end(file: FileIO) -> None:
    """Close a file, with a mark where it ends if there is room for that."""
    with suppress(OSError):
        _write(file, END)
    file.close()


def _steps(path: Path) -> list[int]:
    table = read_draws(path)
    return [max(table["step"].to_pylist())] if len(table) else []
