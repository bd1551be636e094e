"""A checkpoint that somebody asks for: a file in a run's folder, which the run looks at after every learner step.

Whoever can write in the folder can ask, on whichever machine.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from cluster.run_folder import RunFolder, RunFolderError
from cluster.status import look

FILE = "checkpoint-wanted"
EVERY = 0.2
"""Seconds between two looks at whether the checkpoint is there."""


def wanted(folder: RunFolder) -> bool:
    """Whether somebody asked."""
    return (folder.path / FILE).exists()


def taken(folder: RunFolder) -> None:
    """A checkpoint is about to be written: who asks from now on may get it, too, or else the next."""
    (folder.path / FILE).unlink(missing_ok=True)


@dataclass(frozen=True)
class Asking:
    """Let a run that goes on write a checkpoint after the learner step that it is at, and wait for it.

    Attributes:
        run: folder of the run.
    """

    run: tyro.conf.Positional[Path]


def command_checkpoint(arguments: list[str]) -> int:
    """contrail checkpoint RUN; prints the checkpoint's path."""
    folder = RunFolder.open(tyro.cli(Asking, args=arguments, prog="contrail checkpoint").run)
    before = folder.checkpoints()[-1:]
    if not look(folder.path)[1]:
        there = f"its newest checkpoint is {before[0]}" if before else "it has no checkpoint"
        raise RunFolderError(f"{folder.path} is not running: {there}")
    (folder.path / FILE).touch()
    try:
        print(_awaited(folder, before))
    finally:
        taken(folder)  # nobody wants it any more when the run is resumed
    return 0


def _awaited(folder: RunFolder, before: list[Path]) -> Path:
    """The first checkpoint that is newer than one, or that one where no learner step is to come."""
    while True:
        condition, alive = look(folder.path)
        newest = folder.checkpoints()[-1:]  # after that look: what a run writes before it ends is there
        if newest > before or (alive and newest and condition.phase == "evaluating"):
            return newest[0]
        if not alive:
            raise RunFolderError(
                f"{folder.path} ended before it wrote a checkpoint: contrail status {folder.path} tells how"
            )
        time.sleep(EVERY)
