"""A run's numbers by env step: TensorBoard events for looking, JSON lines for all else. One process writes them."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary

from cluster.charts import layout
from cluster.events import Events
from cluster.whole_file import full_disk_told, replace_text


class Metrics:
    """The one writer of a run's metrics: `events/` for TensorBoard and `metrics.jsonl`, the same numbers in both.

    With the first numbers comes TensorBoard's page of charts for them (`cluster.charts`).

    Every write is flushed: a death at any moment loses at most the line being written, which readers skip.

    Args:
        folder: the run's.
        resume_step: env steps at which the run continues; later numbers of the interrupted run are forgotten in both
            places. None: a new run.

    Raises:
        OSError: the disk is full or the folder cannot be written, here or in any write.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None) -> None:
        self._folder = folder
        lines = folder / "metrics.jsonl"
        if resume_step is not None:
            _forget_later_lines(lines, resume_step)
        self._lines = open(lines, "a")  # noqa: SIM115 - closed by close
        self._events = Events(folder, resume_step=resume_step)
        self._laid_out = False

    def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
        """Record values of one moment.

        Args:
            step: env steps (decisions of actors) so far: the x-axis of everything.
            values: by tag, "group/name". Values that are not finite are shown as such by TensorBoard and are null in
                the JSON lines, since JSON knows no others. The group "facts" is for the JSON lines alone: numbers that
                no curve tells anything about.
        """
        numbers = {tag: float(value) for tag, value in values.items()}
        if not self._laid_out and (page := layout(numbers)):
            self.summary(step, page)
            self._laid_out = True
        self._events.scalars(step, {tag: value for tag, value in numbers.items() if not tag.startswith("facts/")})
        finite = {tag: number if math.isfinite(number) else None for tag, number in numbers.items()}
        line = json.dumps({"step": step, "time": round(time.time(), 3)} | finite, allow_nan=False)
        with full_disk_told(self._folder):
            self._lines.write(line + "\n")
            self._lines.flush()

    def text(self, tag: str, markdown: str, *, step: int = 0) -> None:
        """Show a text under TensorBoard's Text tab; it is not a number, so the JSON lines leave it out."""
        self._events.text(tag, markdown, step=step)

    def summary(self, step: int, *values: Summary.Value) -> None:
        """Show what is neither a number nor a text in TensorBoard; see `cluster.pages`."""
        self._events.summary(step, list(values))

    def histograms(self, step: int, values: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Show distributions in TensorBoard, counts (n,) and edges (n + 1,) by tag; the JSON lines leave them out."""
        self._events.histograms(step, values)

    def close(self) -> None:
        """Close both files; a second call does nothing."""
        try:
            self._lines.close()
        finally:
            self._events.close()

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.close()
        except OSError:
            if error is None:  # else that one says already what is wrong
                raise


def read_metrics(folder: Path) -> list[dict[str, int | float]]:
    """What `Metrics` wrote to a run folder, one dict a write, in order.

    Returns:
        `step` (env steps), `time` (seconds since 1970) and the values by tag; null comes back as NaN.

    Raises:
        FileNotFoundError: the folder holds no `metrics.jsonl`.
        ValueError: a line is damaged, other than a last one that a death cut short; names file and line.
    """
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in _rows(folder / "metrics.jsonl")
    ]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a file as dicts. Only a line that ends in a newline was written whole."""
    for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            return
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error}): remove the line to read the others"
            ) from error


def _forget_later_lines(path: Path, step: int) -> None:
    """Keep the complete lines up to a step, replacing the file in one go."""
    if not path.exists():
        return
    replace_text(path, "".join(json.dumps(row) + "\n" for row in _rows(path) if row["step"] <= step))
