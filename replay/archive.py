"""The archive: what a store keeps for good, of a run that goes on and of one that died."""

import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from replay.archive_file import CorruptSegment, read_archived, read_facts
from replay.archiving import Codec, archive, complete_rows, place_of
from replay.extents import Extents
from replay.segment import Segment

__all__ = ["Archivist", "Codec", "CorruptSegment", "archive", "expire", "place_of", "read_archived", "salvage"]


class Archivist:
    """Archives segments in a thread of its own, in the order in which it is given them.

    Owns the thread, and which archived files stay. Nobody waits for it but `close`. If its process dies, what it was
    given and has not finished is still in the live segments: see `salvage`.

    Args:
        folder: of the archive; made if missing.
        codec: how files are compressed.
        max_bytes: of the folder's archived segments; beyond it the oldest go. None: no bound.
        spared: names of those that stay all the same.

    Attributes:
        bytes: of the folder's archived segments.
        rows_expired: how many rows went to keep to `max_bytes`.
    """

    def __init__(
        self,
        folder: Path | str,
        codec: Codec = "lz4",
        max_bytes: int | None = None,
        *,
        spared: frozenset[str] = frozenset(),
    ) -> None:
        self._folder, self._codec, self._max_bytes = Path(folder), codec, max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        _remove_torn(self._folder)
        self._spared = spared
        self.rows_expired, self.bytes = expire(self._folder, max_bytes, spared=spared)
        self._lock, self._done, self._error = threading.Lock(), list[Path](), list[Exception]()
        self._queue: SimpleQueue[tuple[Path, np.ndarray] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="archivist", daemon=True)
        self._thread.start()
        self._closed = False

    def submit(self, segment: Path, ends: np.ndarray) -> None:
        """Archive a live segment's complete rows, those before ends - 1 of each slot; returns at once.

        The segment must stay as it is until `finished` has named it.
        """
        if self._closed:
            raise RuntimeError(f"{segment} came after the archivist of {self._folder} was closed")
        self._queue.put((Path(segment), np.array(ends, np.int64)))

    def finished(self) -> list[Path]:
        """The live segments that were archived since the last call.

        Raises:
            StoreFull: there was no room for one; this is told once. It stays unnamed: nothing of it was archived.
            CorruptSegment: one is damaged; the same.
        """
        with self._lock:
            if self._error:
                raise self._error.pop()
            done, self._done = self._done, []
            return done

    def holds(self, segment: Path) -> bool:
        """Whether the archive has all complete rows of a live segment, or all that can still be had."""
        try:
            return _lacking(segment, self._folder) == 0
        except (FileNotFoundError, ValueError):  # nobody can say what is complete, so nothing more can be archived
            return place_of(segment) is not None and _rows_in(self._folder / segment.name)[0] > 0

    def close(self) -> None:
        """Wait until all that was submitted is archived, or has failed: `finished` says which. Again does nothing."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                archive(job[0], self._folder, ends=job[1], codec=self._codec)
                with self._lock:
                    self._done.append(job[0])
                rows, self.bytes = expire(self._folder, self._max_bytes, spared=self._spared)
                self.rows_expired += rows
            except Exception as error:  # noqa: BLE001 - it is the owner's to hear: see finished
                with self._lock:
                    self._error = self._error or [error]


def expire(folder: Path | str, max_bytes: int | None, *, spared: frozenset[str] = frozenset()) -> tuple[int, int]:
    """Remove the oldest archived segments of a folder until the others fit; nothing else there is touched.

    Args:
        folder: of the archive.
        max_bytes: what they may take. None: no bound.
        spared: names of files that stay in any case: somebody still reads them.

    Returns:
        How many rows went, and the bytes of the segments that stay.
    """
    files = []
    for path in filter(place_of, Path(folder).glob("*.arrow")):
        with suppress(FileNotFoundError):  # another archivist of the folder was faster
            facts = path.stat()
            files.append((facts.st_mtime_ns, path.name, facts.st_size))
    total, gone = sum(size for _, _, size in files), 0
    for _, name, size in sorted(files):
        if max_bytes is None or total <= max_bytes:
            break
        if name in spared:
            continue
        gone += _rows_in(Path(folder) / name)[0]
        (Path(folder) / name).unlink(missing_ok=True)
        total -= size
    return gone, total


def salvage(live: Path | str, log: Path | str, codec: Codec = "lz4") -> tuple[int, list[str]]:
    """Archive what a dead run committed and did not archive.

    Args:
        live: folder of its live segments; there may be none.
        log: folder of the archive; made if missing.
        codec: how files are compressed.

    Returns:
        How many rows were saved, and a sentence for each segment that could not be read.

    Raises:
        StoreFull: there is no room in the archive. What was saved so far is; the rest can be saved later.
    """
    saved, problems = 0, list[str]()
    if Path(log).is_dir():
        _remove_torn(Path(log))
    for path in sorted(Path(live).glob("*.arrow")):
        if place_of(path) is None:
            continue
        try:
            if rows := _lacking(path, Path(log)):
                archive(path, log, ends=_ends(path), codec=codec)
                saved += rows
        except FileNotFoundError as error:
            problems.append(f"{path} cannot be saved: {error.filename} is not there, which says what is complete")
        except ValueError as error:
            problems.append(str(error))
    return saved, problems


def _lacking(path: Path, log: Path) -> int:
    """How many complete rows of a live segment are not in its archived file."""
    there, whole = _rows_in(log / path.name)
    return 0 if whole else max(0, int(complete_rows(Segment.open(path), _ends(path)).sum()) - there)


def _ends(path: Path) -> np.ndarray:
    """The ends of the writer of a segment, as if a row followed its open one: nobody will complete that any more."""
    writer, _ = place_of(path) or ("", 0)
    return Extents.read(path.with_name(f"{writer}.ends"))[2] + 1


def _rows_in(path: Path) -> tuple[int, bool]:
    """Rows of an archived file, and whether they are the whole segment; 0 where there is none, or a damaged one."""
    try:
        facts = read_facts(path)
    except (FileNotFoundError, CorruptSegment):
        return 0, False
    return sum(facts.counts), facts.whole


def _remove_torn(folder: Path) -> None:
    """Remove what processes that are gone left half-written."""
    for path in folder.glob(".*.arrow.*"):
        if not Path("/proc", path.suffix[1:]).exists():
            path.unlink(missing_ok=True)
