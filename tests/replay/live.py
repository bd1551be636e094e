"""A store's live side, made by hand: segments and extents as a writer leaves them."""

from pathlib import Path

import numpy as np

from replay import Segment
from replay.extents import Extents
from replay.segment import held
from tests.replay.store import SCHEMA, rows_of

ROWS = 8


class Live:
    """Segments of one writer, filled with `rows_of`; every slot's newest row is open."""

    def __init__(
        self, folder: Path, writer: str = "actor-0.0", streams: tuple[int, ...] = (5, 3), rows: int = ROWS
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.writer, self.streams, self.rows = folder, writer, streams, rows
        self.ends = np.zeros(len(streams), np.int64)
        self.sequence = 0
        self.extents = Extents.create(folder / f"{writer}.ends", len(streams))
        self.segments: dict[int, Segment] = {}
        self.spare: list[Path] = []

    def path(self, index: int) -> Path:
        return self.folder / f"{self.writer}-{index:06d}.arrow"

    def segment(self, index: int) -> Segment:
        if index not in self.segments and self.spare:
            self.spare.pop().rename(self.path(index))
            self.segments[index] = Segment.open(self.path(index), writable=True)
        elif index not in self.segments:
            facts = {"writer": self.writer, "index": str(index), "stream_ids": ",".join(map(str, self.streams))}
            shape = {"streams": len(self.streams), "rows": self.rows}
            self.segments[index] = Segment.create(self.path(index), SCHEMA, **shape, metadata=facts)
        return self.segments[index]

    def release(self, index: int) -> None:
        """Take a segment back, to be written again unless somebody holds it."""
        free = self.path(index).rename(self.folder / f"{self.writer}.free-{index:06d}")
        self.segments.pop(index).close()
        if held(free):
            free.unlink()
        else:
            self.spare.append(free)

    def grow(self, *complete: int) -> "Live":
        """Write each slot up to this many complete rows and an open one, and commit."""
        for slot, count in enumerate(complete):
            for number in range(max(0, int(self.ends[slot]) - 1), count + 1):
                views, place = self.segment(number // self.rows).columns, number % self.rows
                for name, values in rows_of(np.array([self.streams[slot]]), np.array([number])).items():
                    views[name][slot, place] = values[0]
        self.ends = np.array(complete, np.int64) + 1
        self.extents.write(self.sequence, 7, self.ends)
        self.sequence += 1
        return self


def expected(streams: np.ndarray, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Every column of these rows, stream and row among them."""
    return {"stream": streams, "row": numbers, **rows_of(streams, numbers)}
