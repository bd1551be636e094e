"""What runs came to: one JSON line each in a folder's `results.jsonl`. A run whose line is there is not repeated."""

import json
from collections.abc import Hashable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

FILE = "results.jsonl"
Run = TypeVar("Run", bound=Hashable)


def leave(folder: Path, result: Mapping[str, Any]) -> None:
    """Add a run's line."""
    with (folder / FILE).open("a") as lines:
        lines.write(json.dumps(dict(result)) + "\n")


def finished(folder: Path, kind: type[Run]) -> dict[Run, dict[str, Any]]:
    """The lines of all runs that came to their end.

    Args:
        folder: where they are; without the file there are none.
        kind: a dataclass whose fields each line has: what tells one run from another.
    """
    path = folder / FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {kind(*(line[field.name] for field in fields(kind))): line for line in lines}  # type: ignore[arg-type]
