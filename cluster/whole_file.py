"""Text files that others may read at any moment: they see the old text or the new one, never half of it."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file, or its next version, in one go."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)
