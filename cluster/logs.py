"""What a run's processes print: a file each."""

import faulthandler
import os
import re
import sys
from pathlib import Path

TAIL = 8192
"""Bytes at the end of a log in which last words are looked for."""
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Gymnasium's warnings are yellow: cut off in a table, all that follows would be."""


def log_to(path: Path) -> None:
    """Send this process's output, that of C libraries too, to a file, and there its last words if it crashes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    os.close(file)
    faulthandler.enable()


def last_words(path: Path, lines: int = 1) -> list[str]:
    """The last lines of a log that are not empty; none where there is no log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    said = [line.rstrip() for line in COLOUR.sub("", text).splitlines() if line.strip()]
    return said[-lines:]
