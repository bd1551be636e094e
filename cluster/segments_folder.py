"""Where a run's segments live: in shared memory if it has the room, else in the run's folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.assembly import SEGMENT_BLOCKS
from cluster.experiment import Experiment, Spaces
from cluster.lock import holding

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "contrail-"


def bytes_wanted(experiment: Experiment, spaces: Spaces) -> int:
    """Upper bound of what the store will hold: three segments per stream, and every table's capacity."""
    row = spaces.schema(experiment).row_bytes
    segments = 3 * SEGMENT_BLOCKS * experiment.rows * experiment.envs
    held = sum(table.capacity_windows * table.stride_rows for table in experiment.tables.values())
    return row * (segments + held)


@contextmanager
def segments_folder(run: Path, wanted: int) -> Iterator[Path]:
    """An empty folder for segments while a run lasts, always found as the run's `replay/segments`.

    In shared memory its owner holds its lock, by which the next run tells a dead owner's folder and removes it.

    Args:
        run: the run's folder.
        wanted: bytes that it should have room for, at least.
    """
    remove_orphans()
    place = run / "replay" / "segments"
    _remove(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not _has_room(wanted):
        place.mkdir()
        try:
            yield place
        finally:
            _remove(place)
        return
    # It takes its name only when locked: nobody must take it for an orphan in between.
    unnamed = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{run.name}-", dir=SHARED_MEMORY))
    with holding(unnamed):
        fast = unnamed.rename(unnamed.with_name(unnamed.name.removeprefix(".")))
        try:
            place.symlink_to(fast)
            yield fast
        finally:
            _remove(place)
            _remove(fast)


def remove_orphans() -> None:
    """Remove folders in shared memory whose owner no longer lives (a run that was killed outright)."""
    for folder in SHARED_MEMORY.glob(f"{PREFIX}*/"):
        try:
            with holding(folder) as orphaned:
                if orphaned:
                    _remove(folder)
        except (FileNotFoundError, PermissionError):  # its owner just removed it, or is another user
            continue


def _has_room(wanted: int) -> bool:
    if not (SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)):
        return False
    return shutil.disk_usage(SHARED_MEMORY).free > 2 * wanted


def _remove(place: Path) -> None:
    """Remove a folder with all in it, or a link to one."""
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
