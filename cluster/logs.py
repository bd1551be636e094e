"""What a run's processes print: a file each."""

import faulthandler
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path

TAIL = 8192
"""Bytes at the end of a log in which last words are looked for."""
BEGINS = "-- process "
"""Before what each process prints that takes the place of another, and writes to its log: last words are its own."""
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Gymnasium's warnings are yellow: cut off in a table, all that follows would be."""


def log_to(path: Path) -> None:
    """Send this process's output, that of C libraries too, to a file, and there its last words if it crashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, f"{BEGINS}{os.getpid()} on {platform.node()}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    os.close(file)
    faulthandler.enable()


class Log:
    """What this process prints: in the run's folder or, where that is on another machine, in a file of its own one.

    From there the driver is told what is new. Last words that nobody asked for in time stay on that machine.

    Args:
        path: in the run's folder.
        far: whether that is on another machine.
    """

    def __init__(self, path: Path, *, far: bool) -> None:
        run = path.parent.parent.name
        self._path = Path(tempfile.gettempdir(), f"contrail-{os.getuid()}", run, path.name) if far else path
        self._told = self._path.stat().st_size if self._path.exists() else 0  # what one before this said
        self._far = far
        log_to(self._path)

    def news(self) -> str:
        """What the run's folder lacks, at most what a screen can show."""
        if not self._far:
            return ""
        with open(self._path, "rb") as file:
            file.seek(max(self._told, file.seek(0, os.SEEK_END) - TAIL))
            text, self._told = file.read(), file.tell()
        return text.decode(errors="replace")


def last_words(path: Path, lines: int = 1) -> list[str]:
    """The last lines that are not empty, of the last process that wrote a log; none where there is no log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    said = [line.rstrip() for line in COLOUR.sub("", text).splitlines() if line.strip()]
    begun = max((place for place, line in enumerate(said) if line.startswith(BEGINS)), default=-1)
    said = said[begun + 1 :]
    return said[-lines:]
