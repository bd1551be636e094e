"""Locks that end with their process, however it ends: who holds one is alive."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock; gives False where another process holds it.

    The kernel keeps the lock, so it holds between containers that share a file system but not process ids, and a
    process that is killed outright gives it back.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _taken(file)
    finally:
        os.close(file)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
