"""A run's checkpoints, written and read with a sentence for whatever goes wrong."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from cluster.experiment import ExperimentError
from learners import checkpoint
from learners.checkpoint import CheckpointError
from learners.learner import Learner


class NotWritten(OSError):
    """A checkpoint that the disk did not take; says where, why and how much room there is."""


def write(
    folder: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any], snapshots: Mapping[int, bytes]
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        folder: of the checkpoint.
        tensors: of `Learner.state`, with all ranks' random numbers.
        values: of it.
        snapshots: by actor, with which it begins its next block.

    Raises:
        NotWritten: the disk is full, or the folder cannot be written; earlier checkpoints are untouched.
    """
    try:
        files = {f"actor-{actor}.pickle": snapshot for actor, snapshot in snapshots.items()}
        checkpoint.save(folder, tensors, values, files)
        _tidy(folder.parent)
    except (OSError, SafetensorError) as error:
        _tidy(folder.parent)
        free = shutil.disk_usage(folder.parent).free
        raise NotWritten(
            f"no checkpoint could be written in {folder.parent}, which has {free:,} bytes free: "
            f"{error}; make room there"
        ) from error


def _tidy(folder: Path) -> None:
    """Remove what deaths left half-way."""
    for partial in folder.glob("*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's tensors and values; `version` and `steps` are among the values.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        tensors, values = checkpoint.load(folder)
        return tensors, {**values, "version": int(values["version"]), "steps": int(values["steps"])}
    except (CheckpointError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}): remove it to use the checkpoint before it") from error


def snapshots(folder: Path) -> dict[int, bytes]:
    """The actors' snapshots in a checkpoint, by actor; they are pickles, and nothing but a resumption reads them."""
    return {int(path.stem.removeprefix("actor-")): path.read_bytes() for path in folder.glob("actor-*.pickle")}


def version(folder: Path) -> int:
    """The version of a checkpoint's weights, without reading them.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        return int(checkpoint.values(folder)["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}): remove it") from error


def restore(learner: Learner, folder: Path) -> None:
    """Let a learner continue from a checkpoint.

    Raises:
        CheckpointError: it is damaged.
        ExperimentError: it is of another model.
    """
    tensors, values = read(folder)
    with fitting(folder):
        learner.restore(tensors, values)


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """While a checkpoint is taken up: parts of it that do not fit the model come out as one sentence."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        raise ExperimentError(
            f"{folder} does not fit the model ({' '.join(str(error).split())[:200]}): did the recipe change since? "
            "Undo that, or start a new run"
        ) from error
