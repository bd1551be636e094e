"""Where a run's segments live: in shared memory if it has the room, else in the run's folder."""

import os
import shutil
from pathlib import Path

from cluster.assembly import SEGMENT_BLOCKS
from cluster.experiment import Experiment, Spaces

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "contrail-"


def bytes_wanted(experiment: Experiment, spaces: Spaces) -> int:
    """Upper bound of what the store will hold: three segments per stream, and every table's capacity."""
    row = spaces.schema(experiment).row_bytes
    segments = 3 * SEGMENT_BLOCKS * experiment.rows * experiment.envs
    held = sum(table.capacity_windows * table.stride_rows for table in experiment.tables.values())
    return row * (segments + held)


def make_segments_folder(run: Path, wanted: int) -> Path:
    """An empty folder for segments, linked from the run's `replay/segments`.

    Its name carries this process's id, so that the next run can tell a dead owner's folder and remove it.
    """
    remove_orphans()
    folder = run / "replay" / "segments"
    if not (SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 2 * wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder
    fast = SHARED_MEMORY / f"{PREFIX}{os.getpid()}-{run.name}"
    shutil.rmtree(fast, ignore_errors=True)
    fast.mkdir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.unlink(missing_ok=True)
    folder.symlink_to(fast)
    return fast


def remove_segments_folder(run: Path, folder: Path) -> None:
    """Remove the folder and its link."""
    shutil.rmtree(folder, ignore_errors=True)
    link = run / "replay" / "segments"
    if link.is_symlink():
        link.unlink()


def remove_orphans() -> None:
    """Remove folders in shared memory whose owner no longer lives (a run that was killed outright)."""
    if not SHARED_MEMORY.is_dir():
        return
    for folder in SHARED_MEMORY.glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
