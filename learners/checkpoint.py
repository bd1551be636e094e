"""Checkpoints: tensors as safetensors, values as JSON, written whole or not at all."""

import ctypes
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

RENAME_EXCHANGE = 2
"""Of renameat2(2), which Linux has, but not for every file system."""


class CheckpointError(ValueError):
    """A checkpoint that is missing or does not fit; names the file."""


def save(
    folder: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any], files: Mapping[str, bytes] | None = None
) -> None:
    """Write a checkpoint folder: `tensors.safetensors`, `values.json`, and other files by name.

    It appears under its name only when complete and on disk; a death in between leaves the previous ones untouched.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / "tensors.safetensors"
    )
    (partial / "values.json").write_text(json.dumps(dict(values), indent=1))
    for name, content in (files or {}).items():
        (partial / name).write_bytes(content)
    for path in partial.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    if not folder.exists():
        os.replace(partial, folder)
        return
    if not _exchanged(partial, folder):  # over NFS; for an instant both are there, but neither under its name
        former = folder.with_name(folder.name + ".former.partial")
        shutil.rmtree(former, ignore_errors=True)
        os.replace(folder, former)
        os.replace(partial, folder)
        os.replace(former, partial)
    shutil.rmtree(partial, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders swap their names in one go; False: the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    names = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return renameat2 is not None and renameat2(-1, names[0], -1, names[1], RENAME_EXCHANGE) == 0


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote.

    Raises:
        CheckpointError: a file is missing or unreadable.
    """
    try:
        return load_file(folder / "tensors.safetensors"), values(folder)
    except Exception as error:
        raise CheckpointError(f"{folder} is not a readable checkpoint: {error}") from error


def values(folder: Path) -> dict[str, Any]:
    """The plain values alone.

    Raises:
        CheckpointError: the file is missing or unreadable.
    """
    try:
        return json.loads((folder / "values.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} is not a readable checkpoint: {error}") from error
