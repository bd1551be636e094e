"""Extents: how far each slot of a writer has come, in a small file beside its segments that outlives the writer."""

import mmap
import os
import shutil
from pathlib import Path

import numpy as np

from replay.segment import FULL, StoreFull

HEAD = 2
"""Numbers before the ends: sequence and version."""


class ExtentsError(ValueError):
    """A file that does not say how far a writer has come; names it."""


class Extents:
    """The file `WRITER.ends`, seen by its writer: little-endian int64 sequence, version, and the end of every slot.

    Rows before end - 1 of a slot are complete; row end - 1 is open. Each number is written in one piece, the ends
    before the rest, and ends only grow: a reader may find some of them newer than others, but never one that is wrong.

    The writer owns it, from its first commit until its folder goes. If the writer dies, the file says what was
    committed.

    Args:
        path: of a file that `create` made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._values = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    @classmethod
    def create(cls, path: Path | str, streams: int) -> "Extents":
        """A new file that says that nothing is written; it appears complete.

        Args:
            path: of the file, WRITER.ends.
            streams: how many slots the writer has.

        Raises:
            StoreFull: there is no room; nothing is left behind.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(bytes(8 * (HEAD + streams)))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in FULL:
                raise
            text = f"{path.parent} has no room for {path.name}: {shutil.disk_usage(path.parent).free:,} bytes free; "
            raise StoreFull(error.errno, text + "make room there, or use a larger folder") from error
        return cls(path)

    def write(self, sequence: int, version: int, ends: np.ndarray) -> None:
        """Say that a commit's rows can be read.

        Args:
            sequence: of the commit.
            version: of the weights that decided its rows.
            ends: (slots,) one past the open row of each.

        Raises:
            ValueError: the number of ends is another, or one shrinks.
        """
        numbers, before = ends.tolist(), self._values[HEAD:].tolist()
        if len(numbers) != len(before):
            raise ValueError(f"{self.path} holds the ends of {len(before)} slots, got {len(numbers)}")
        if any(new < old for new, old in zip(numbers, before, strict=True)):
            raise ValueError(f"{self.path}: ends only grow; they are {before}, got {numbers}")
        for place, end in enumerate(numbers, start=HEAD):
            self._values[place] = end  # one store of 8 bytes; copying an array promises no such thing
        self._values[1] = version
        self._values[0] = sequence

    def close(self) -> None:
        """Unmap the file; it stays."""
        self._values.release()

    @staticmethod
    def read(path: Path | str) -> tuple[int, int, np.ndarray]:
        """What a file says, while its writer goes on or after it died.

        Returns:
            Sequence and version of the newest commit that is wholly in the ends, and the ends, int64 (slots,), which
            may hold more than that commit.

        Raises:
            FileNotFoundError: the folder has no such file (any more).
            ExtentsError: the file is short or damaged.
        """
        path = Path(path)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8 * (HEAD + 1) or size % 8:
                wanted = f"wanted a multiple of 8 from {8 * (HEAD + 1)} on"
                raise _damaged(path, f"has {size} bytes, {wanted}")
            mapping = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        with memoryview(mapping).cast("q") as values:
            sequence, version, *ends = values.tolist()  # in this order, the reverse of the writer's
        if min(sequence, *ends) < 0:
            raise _damaged(path, f"holds negative numbers: sequence {sequence}, ends {ends}")
        return sequence, version, np.array(ends, np.int64)


def _damaged(path: Path, how: str) -> ExtentsError:
    text = f"{path} {how}: which rows of its writer are complete is lost; remove it with the writer's segments"
    return ExtentsError(text)
