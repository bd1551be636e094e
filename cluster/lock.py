"""Locks that end with their process, however it ends: who holds one is alive."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 0.2
"""Seconds for which a lock is asked for: somebody who only looks keeps it for an instant."""


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold a folder's lock; gives False where another process holds it.

    The kernel keeps the lock, so it holds between containers that share a file system but not process ids, and a
    process that is killed outright gives it back.
    """
    with _opened(folder) as file:
        deadline = time.monotonic() + PATIENCE
        while not (alone := _taken(file, fcntl.LOCK_EX)) and time.monotonic() < deadline:
            time.sleep(PATIENCE / 20)
        yield alone


def in_use(folder: Path) -> None:
    """Share a folder's lock with others till this process ends: nobody takes it for an orphan meanwhile."""
    _taken(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_SH)


def held(folder: Path) -> bool:
    """Whether a process holds a folder's lock. Those who look do not take each other for one."""
    with _opened(folder) as file:
        return not _taken(file, fcntl.LOCK_SH)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield file
    finally:
        os.close(file)


def _taken(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
