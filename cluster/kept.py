"""Where learners keep their last states on a machine, and that none are left there when their run has ended."""

import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "contrail-"
"""Of a run's folder in shared memory."""
OWNER = "owner.json"
"""In a folder of live segments: whose log its rows belong to."""


def keeping_folder(live: Path, *, far: bool) -> Path:
    """Where the learners of this machine keep their state: with the live segments, or where those would be.

    Args:
        live: folder of live segments on the driver's machine.
        far: whether this is another one.
    """
    folder = _elsewhere(live) if far else live
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def forget(live: Path) -> None:
    """Remove what a run's learners kept on a machine that is not the driver's: the run has ended.

    A learner that was replaced on another machine left its own behind.
    """
    folder = _elsewhere(live)
    if not (folder / OWNER).exists():  # else the driver is on this machine, too, with another node of Ray
        shutil.rmtree(folder, ignore_errors=True)


def _elsewhere(live: Path) -> Path:
    # Live segments are in shared memory, under a name of their own, or else in the run's folder, like every run's.
    return SHARED_MEMORY / (live.name if live.name.startswith(PREFIX) else f"{PREFIX}{live.parent.parent.name}")
