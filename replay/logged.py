"""Draws of the past: what a shard once handed out, from the log, so that a learner step can be made again."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from replay.messages import Draw, Items

FIELDS = ("stream", "row", "slot", "kept", "floor", "item")


OUTGROWN = "the log outgrew what is kept (--run.rows-gib), or a run that goes on has not archived them yet"


class NotLogged(ValueError):
    """A draw or rows that are not kept: says which, and why that may be."""


class LoggedShard:
    """A shard of the past.

    Args:
        draws: the log's draws of this shard (`replay.draw_log.SCHEMA`).
        folders: where its segments are, archived or live; the first that has one counts.
    """

    def __init__(self, draws: pa.Table, folders: Sequence[Path]) -> None:
        self._draws, self._folders = draws, tuple(folders)
        self._rows_per_segment: dict[str, int] = {}

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Rank's share of a draw, as it was given then.

        Raises:
            NotLogged: the draw, or a segment that it reads, is not there.
        """
        drawn = self._draws.filter(pc.field("step") == step).sort_by("place")
        if not len(drawn):
            raise NotLogged(f"the log has no draw {step}: rows were not kept, or the step was never made")
        writers = sorted(set(drawn["writer"].to_pylist()))
        rows = tuple(self._rows(writer) for writer in writers)
        items, segments = {}, dict[tuple[str, int], str]()
        for name in sorted(set(drawn["table"].to_pylist())):
            mine = drawn.filter(pc.field("table") == name)
            count = len(mine) // ranks
            mine = mine.slice(rank * count, count)
            items[name] = _items(mine, writers)
            segments |= self._segments(mine)
        return Draw(items, tuple(writers), rows, segments)

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        """The past stays as it was."""

    def _rows(self, writer: str) -> int:
        if writer not in self._rows_per_segment:
            for folder in self._folders:
                for path in sorted(folder.glob(f"{writer}-{'[0-9]' * 6}.arrow")):
                    with pa.memory_map(str(path)) as file:
                        self._rows_per_segment[writer] = int(pa.ipc.open_file(file).schema.metadata[b"rows"])
                    return self._rows_per_segment[writer]
            raise NotLogged(f"no rows of {writer} are kept: {OUTGROWN}")
        return self._rows_per_segment[writer]

    def _segments(self, drawn: pa.Table) -> dict[tuple[str, int], str]:
        """Path by (writer, index) of every segment that the windows read."""
        found: dict[tuple[str, int], str] = {}
        for window in drawn.select(["writer", "row", "lead", "window", "floor"]).to_pylist():
            rows = self._rows(window["writer"])
            first = max(window["floor"], window["row"] - window["lead"]) // rows
            for index in range(first, (window["row"] + window["window"] - 1) // rows + 1):
                if (window["writer"], index) not in found:
                    found[window["writer"], index] = self._path(window["writer"], index)
        return found

    def _path(self, writer: str, index: int) -> str:
        for folder in self._folders:
            path = folder / f"{writer}-{index:06d}.arrow"
            if path.exists():
                return str(path)
        raise NotLogged(f"segment {index} of {writer} is not kept: {OUTGROWN}")


def _items(drawn: pa.Table, writers: list[str]) -> Items:
    columns = {name: drawn[name].to_numpy() for name in FIELDS}
    places = {writer: place for place, writer in enumerate(writers)}
    return Items(
        streams=columns["stream"],
        starts=columns["row"],
        writers=np.array([places[writer] for writer in drawn["writer"].to_pylist()], np.int64),
        slots=columns["slot"],
        kept=columns["kept"],
        floors=columns["floor"],
        ids=columns["item"],
        probabilities=drawn["probability"].to_numpy(),
    )
