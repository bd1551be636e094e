"""Reading `metrics.jsonl` while another process writes it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class NewRows:
    """The rows of a run's metrics, each once, as they come.

    A run that is resumed replaces the file; then all its rows are new.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._inode, self._read = 0, 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The rows that were written since the last call; null values are left out."""
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        with file:
            now = os.fstat(file.fileno())  # not the path's: another file may have taken it since
            if now.st_ino != self._inode or now.st_size < self._read:
                self._inode, self._read = now.st_ino, 0
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # still being written
                    return
                self._read += len(line)
                yield {tag: value for tag, value in json.loads(line).items() if value is not None}
