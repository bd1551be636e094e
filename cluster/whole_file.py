"""Text files that others may read at any moment: they see the old text or the new one, never half of it."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file, or its next version, in one go; of two processes that do, each writes all of its own."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
