"""Text files that others may read at any moment: they see the old text or the new one, never half of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file, or its next version, in one go; of two processes that do, each writes all of its own."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Say of an OSError in here which folder it concerns, and how much room that has."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(folder).free
        text = f"metrics cannot be written in {folder}, which has {free:,} bytes free: {error}; make room there"
        raise OSError(text) from error
