"""Where learners keep their last states on a machine, and that none are left there when their run has ended."""

import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "contrail-"
"""Of a run's folder in shared memory."""


def keeping_folder(live: Path) -> Path:
    """Where the learners of this machine keep their state: with the live segments, or where those would be."""
    folder = live if live.is_dir() else _elsewhere(live)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def forget(live: Path) -> None:
    """Remove what a run's learners kept on this machine, which has no live segments: the run has ended.

    A learner that was replaced on another machine left its own behind.
    """
    if not live.is_dir():
        shutil.rmtree(_elsewhere(live), ignore_errors=True)


def _elsewhere(live: Path) -> Path:
    # Live segments are in shared memory, under a name of their own, or else in the run's folder, like every run's.
    return SHARED_MEMORY / (live.name if live.name.startswith(PREFIX) else f"{PREFIX}{live.parent.parent.name}")
