"""A shard's segments: which are live, which are sealed, and which can go."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from replay.messages import Commit, SegmentInfo
from replay.segment_files import files_of, free_of, index_of, writer_of
from replay.sources import Ledger, Sources

SPARE = 2
"""Released segments of a writer that are kept for it to write again: making a new one costs ten times as much."""


@runtime_checkable
class Archive(Protocol):
    """Where sealed segments are kept for good; `replay.archive.Archivist` is one."""

    def submit(self, segment: Path, ends: np.ndarray) -> None:
        """Take a segment's complete rows, those before ends - 1 of each slot; returns at once."""

    def finished(self) -> list[Path]:
        """The segments taken since the last call: they may go."""

    def holds(self, segment: Path) -> bool:
        """Whether a segment was taken."""

    def close(self) -> None:
        """Wait until all is taken."""


class Segments:
    """The live segments of a shard's writers.

    A segment is sealed when all its rows are complete: it goes to the archive, if there is one. It is released when
    no window refers to it, and no window can be made of it any more. When the archive has it too, its file is left for
    its writer to use again, or removed; how fast the archive is changes nothing else.

    Args:
        sources: of the shard.
        archive: takes sealed segments; None: there is none.

    Attributes:
        ledgers: of the writers that are not gone, by name.
        live_bytes: of their segments' files.
        leaving_bytes: of the files of released segments that the archive has not finished yet.
    """

    def __init__(self, sources: Sources, archive: Archive | None) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.live_bytes = self.leaving_bytes = 0
        self.archive = archive
        self._frozen = False  # while calls are repeated for their effect on the index alone
        self._leaving: dict[str, int] = {}  # names of released files that wait for the archive, and their bytes
        self._sources = sources
        self._gone: dict[str, np.ndarray] = {}  # writers of whom nothing is left, and where their rows ended
        self._released = 0

    def __getstate__(self) -> dict[str, Any]:
        """All but the archive, and frozen: another process must say first whose the files are now."""
        return self.__dict__ | {"archive": None, "_frozen": True, "_leaving": {}, "leaving_bytes": 0}

    def thaw(self, folder: Path, archive: Archive | None) -> None:
        """Own the files from now on; those that were to go when the former owner died go now.

        Args:
            folder: of the live segments.
            archive: where sealed segments go.
        """
        self._frozen, self.archive = False, archive
        segments = [segment for ledger in self.ledgers.values() for segment in ledger.segments.values()]
        live = {Path(segment.path).name for segment in segments if not segment.archived}
        for ledger in self.ledgers.values():
            ledger.archiving.clear()  # of the former archive
            for index in [index for index in ledger.segments if index < ledger.sealed]:
                self._submit(ledger, index)
        for path in sorted(path for path in folder.glob("*.arrow") if path.name not in live):
            writer = writer_of(path)
            owner = self.ledgers.get(writer)
            if owner is not None and (index_of(path) < owner.sealed or not owner.owns.any()):
                self._leave(path, _known(owner))
            elif writer in self._gone:
                self._leave(path, self._gone[writer])
        self._remove_spare(folder)

    def _remove_spare(self, folder: Path) -> None:
        """Remove what lies beside the segments of writers that are dead."""
        for path in sorted(folder.glob("*.ends")):
            writer = path.stem
            if writer in self._gone:
                self._remove_beside(writer, folder)
            elif writer in self.ledgers and not self.ledgers[writer].owns.any():
                for spare in free_of(folder, writer):
                    self._remove(spare)

    def _leave(self, path: Path, ends: np.ndarray) -> None:
        """Remove a file that was released, once the archive has it."""
        if self.archive is None or self.archive.holds(path):
            path.unlink(missing_ok=True)
        else:
            self._await(path, path.stat().st_size)
            self.archive.submit(path, ends)

    def gone(self, writer: str) -> bool:
        """Whether nothing is left of a writer that was here."""
        return writer in self._gone

    def refuse(self, commit: Commit) -> None:
        """Remove the segments of a writer that has been replaced, but for those of rows that came in time."""
        ledger = self.ledgers.get(commit.writer)
        if ledger is not None and ledger.owns.any():
            return  # it came twice
        known = {} if ledger is None else ledger.segments
        for path in [Path(segment.path) for segment in commit.segments if segment.index not in known]:
            if path.name not in self._leaving:
                self._remove(path)
            if ledger is None:
                self._remove_beside(commit.writer, path.parent)

    def remove_unheard(self, writer: str, folder: Path) -> None:
        """Remove segments that a dead writer had begun and told nobody of: no message of it is taken any more."""
        ledger = self.ledgers.get(writer)
        for path in files_of(folder, writer):
            if path.name not in self._leaving and (ledger is None or index_of(path) not in ledger.segments):
                self._remove(path)
        if ledger is None:
            self._remove_beside(writer, folder)

    def welcome(self, commit: Commit) -> Ledger:
        """Start the ledger of a new writer."""
        ledger = self.ledgers[commit.writer] = self._sources.welcome(commit)
        return ledger

    def adopt(self, former: Ledger) -> Ledger:
        """Take over another shard's writer, who is dead."""
        begins, ends = tuple(former.first.tolist()), tuple(former.end.tolist())
        last = Commit(
            former.name, tuple(former.streams.tolist()), begins, ends, 0, (), former.rows_per_segment, former.sequence
        )
        ledger = self.welcome(last)
        self._sources.extend(ledger, former.end.copy())
        ledger.sequence, ledger.segments = former.sequence, dict(former.segments)
        ledger.reserve(max(ledger.segments, default=0) + 1)
        ledger.sealed = max(ledger.segments, default=0) + 1
        self.live_bytes += sum(segment.size for segment in ledger.segments.values())
        return ledger

    def note(self, ledger: Ledger, commit: Commit) -> None:
        """Take note of a commit's segments; those that it completed are sealed."""
        for segment in commit.segments:
            if segment.index not in ledger.segments:
                ledger.segments[segment.index] = segment
                self.live_bytes += segment.size
                ledger.folder = str(Path(segment.path).parent)
        ledger.reserve(max(ledger.segments, default=0) + 1)
        # Slots that others have taken over are complete as they are.
        ends = ledger.end[ledger.owns] if ledger.owns.any() else ledger.end
        complete = int(ends.min() - 1) // ledger.rows_per_segment
        for index in range(ledger.sealed, complete):
            self._submit(ledger, index)
        ledger.sealed = max(ledger.sealed, complete)

    def release(self, floors: Mapping[int, np.ndarray]) -> None:
        """Release what nothing can read any more.

        Args:
            floors: by ledger, the first row of each slot that later windows may read.
        """
        self._sources.freed = False
        for ledger in list(self.ledgers.values()):
            floor = np.minimum(floors[ledger.place], ledger.end - 1)[ledger.owns]
            needed = int(floor.min()) // ledger.rows_per_segment if len(floor) else None
            if needed is None:
                self._seal_rest(ledger)
            for index in [i for i in ledger.segments if needed is None or i < needed]:
                if not ledger.references[index]:
                    self._release(ledger, index)
            if needed is None and not ledger.segments and not ledger.references.any():
                self._forget(ledger)

    def collect(self) -> None:
        """Hear from the archive what it has finished; files that were released may go.

        Raises:
            OSError: what the archive could not do.
        """
        if self.archive is None:
            return
        for path in self.archive.finished():
            ledger = self.ledgers.get(writer_of(path))
            if ledger is not None:
                ledger.archiving.discard(index_of(path))
            if path.name in self._leaving:
                self.leaving_bytes -= self._leaving.pop(path.name)
                self._let_go(path, ledger)

    def relocate(self, ledger: Ledger, index: int, segment: SegmentInfo | None) -> None:
        """Note where a segment is now; None: it is lost."""
        self.live_bytes -= ledger.segments.pop(index).size
        if segment is not None:
            ledger.segments[index] = segment
            self.live_bytes += segment.size

    def _forget(self, ledger: Ledger) -> None:
        """Nothing is left of this writer."""
        self._remove_beside(ledger.name, ledger.folder)
        del self.ledgers[ledger.name]
        self._gone[ledger.name] = _known(ledger)
        self._sources.forget(ledger)

    def _remove_beside(self, writer: str, folder: str | Path) -> None:
        """Remove what lies beside a writer's segments: those it would have used again, and where its rows ended."""
        if folder and all(writer_of(Path(name)) != writer for name in self._leaving):
            for path in (*free_of(Path(folder), writer), Path(folder) / f"{writer}.ends"):
                self._remove(path)

    def statistics(self) -> dict[str, float]:
        """Segments and bytes that are live, segments that wait for the archive, and those released since the start."""
        ledgers = self.ledgers.values()
        return {
            "segments": float(sum(len(ledger.segments) for ledger in ledgers)),
            "segments_archiving": float(sum(len(ledger.archiving) for ledger in ledgers)),
            "segments_released": float(self._released),
            "bytes": float(self.live_bytes),
        }

    def close(self) -> None:
        """Archive all complete rows if there is an archive, and remove the files."""
        for ledger in list(self.ledgers.values()):
            self._seal_rest(ledger)
        if self.archive is not None:
            self.archive.close()
            self.collect()
        for ledger in list(self.ledgers.values()):
            ledger.owns[:] = False
            for index in list(ledger.segments):
                self._release(ledger, index)
            self._remove_beside(ledger.name, ledger.folder)
            self._gone[ledger.name] = _known(ledger)
        self.ledgers = {}

    def _submit(self, ledger: Ledger, index: int) -> None:
        segment = ledger.segments.get(index)
        if self.archive is None or self._frozen or segment is None or segment.archived:
            return
        if not self.archive.holds(Path(segment.path)):
            ledger.archiving.add(index)
            self.archive.submit(Path(segment.path), _known(ledger))

    def _seal_rest(self, ledger: Ledger) -> None:
        """What a writer that is gone left behind unfinished is complete as it is."""
        for index in sorted(i for i in ledger.segments if i >= ledger.sealed):
            self._submit(ledger, index)
            ledger.sealed = index + 1

    def _release(self, ledger: Ledger, index: int) -> None:
        segment = ledger.segments.pop(index)
        self.live_bytes -= segment.size
        self._released += 1
        if self._frozen or segment.archived:
            return
        path = Path(segment.path)
        if index in ledger.archiving:
            self._await(path, segment.size)
        elif path.name not in self._leaving:  # a writer that was given up may name it again
            self._let_go(path, ledger)

    def _await(self, path: Path, size: int) -> None:
        """Keep a released file until the archive has it."""
        self.leaving_bytes += size - self._leaving.get(path.name, 0)
        self._leaving[path.name] = size

    def _let_go(self, path: Path, ledger: Ledger | None) -> None:
        """Leave a file that nobody reads to its writer, or remove it."""
        writer = writer_of(path)
        if ledger is not None and ledger.owns.any() and len(free_of(path.parent, writer)) < SPARE:
            with suppress(FileNotFoundError):  # it was released before the shard was restarted
                path.rename(path.with_name(f"{writer}.free-{index_of(path):06d}"))
            return
        self._remove(path)
        if ledger is None:
            self._remove_beside(writer, path.parent)

    def _remove(self, path: Path) -> None:
        if not self._frozen:
            path.unlink(missing_ok=True)


def _known(ledger: Ledger) -> np.ndarray:
    """The ends by which the archive takes the open row, too, where it is the last that there will be.

    Draws have read its observation; a sealed segment has no open row.
    """
    return ledger.end + 1
