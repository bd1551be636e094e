"""Where a run's segments live: in shared memory if it has the room, else in the run's folder."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from cluster.assembly import rows_per_segment
from cluster.experiment import Experiment, Spaces
from cluster.kept import OWNER, PREFIX, SHARED_MEMORY
from cluster.lock import holding
from cluster.run_folder import RunFolderError
from replay.archive import Codec, expire, salvage
from replay.segments import SPARE

TAKES = 60.0
"""Seconds that another run may take to send a folder's rows to their log."""


def bytes_wanted(experiment: Experiment, spaces: Spaces) -> int:
    """Upper bound of what the store will hold: three segments of each stream, spare ones, every table's capacity."""
    row = spaces.schema(experiment).row_bytes
    segments = 0 if experiment.store else (3 + SPARE) * rows_per_segment(experiment, spaces) * experiment.envs
    held = sum(table.capacity_windows * table.stride_rows for table in experiment.tables.values())
    return row * (segments + held)


@contextmanager
def segments_folder(
    run: Path, wanted: int, *, rows: Codec = "none", kept_bytes: int | None = None, go_on: bool = False
) -> Iterator[Path]:
    """The folder of live segments while a run lasts, always found as the run's `replay/segments`.

    In shared memory its owner holds its lock, by which the next run tells a dead owner's folder: that one's rows go to
    its run's log, if it keeps one, and the folder is removed.

    Args:
        run: the run's folder.
        wanted: bytes that it should have room for, at least.
        rows: how the run's log compresses rows; "none": it keeps none.
        kept_bytes: what the log may take; None: no bound.
        go_on: take over what an earlier start of the run left when it was killed; else that is removed, too. Either way
            the run's log has all its rows first.
    """
    place = run / "replay" / "segments"
    place.parent.mkdir(parents=True, exist_ok=True)
    with _taken_over(place) if go_on else nullcontext() as left, _held(place, left, wanted, run.name) as folder:
        if left is not None:
            # Before its shards are made again as they were at a checkpoint: they do not know of rows that came later.
            _salvage(folder)
        owner = {"log": str((run / "replay" / "log").resolve()), "rows": rows, "kept_bytes": kept_bytes}
        (folder / OWNER).write_text(json.dumps(owner))
        try:
            yield folder
        finally:
            _end(folder)
            _remove(place)


@contextmanager
def _taken_over(place: Path) -> Iterator[Path | None]:
    """What an earlier start left, locked; None: nothing, or another run has just taken it for an orphan's.

    That one sends its rows to the log: it is waited for, since it removes the folder next.

    Raises:
        RunFolderError: it takes too long.
    """
    left, deadline = place.resolve(), time.monotonic() + TAKES
    with ExitStack() as stack:
        while left.is_dir() and not _locked(left, stack):
            if time.monotonic() > deadline:
                raise RunFolderError(f"{left} is still being archived by another process: resume when that has ended")
        yield left if left.is_dir() else None


def _locked(folder: Path, stack: ExitStack) -> bool:
    """Whether a folder's lock could be had; then it is held until the stack is left."""
    with suppress(FileNotFoundError), ExitStack() as attempt:
        if attempt.enter_context(holding(folder)):
            stack.push(attempt.pop_all())
            return True
    return False


@contextmanager
def _held(place: Path, left: Path | None, wanted: int, name: str) -> Iterator[Path]:
    """What an earlier start left, or a new folder, in shared memory if it has the room."""
    remove_orphans(but=left)
    if left is None:
        _end(place)
    if left is not None and left != place.absolute():
        yield left
    elif left is not None or not _has_room(wanted):
        place.mkdir(exist_ok=True)
        yield place
    else:
        # It takes its name only when locked: nobody must take it for an orphan in between.
        unnamed = Path(tempfile.mkdtemp(prefix=f".{PREFIX}{name}-", dir=SHARED_MEMORY))
        with holding(unnamed):
            fast = unnamed.rename(unnamed.with_name(unnamed.name.removeprefix(".")))
            place.symlink_to(fast)
            yield fast


def remove_orphans(but: Path | None = None) -> None:
    """Remove folders in shared memory whose owner no longer lives (a run that was killed outright)."""
    for folder in SHARED_MEMORY.glob(f"{PREFIX}*/"):
        if folder == but:
            continue
        try:
            with holding(folder) as orphaned:
                if orphaned:
                    _end(folder)
        except (FileNotFoundError, PermissionError):  # its owner just removed it, or is another user
            continue


def _end(folder: Path) -> None:
    """Remove a folder of live segments; what its run's log lacks of them goes there first.

    Raises:
        StoreFull: there is no room for it; the folder stays.
    """
    _salvage(folder)
    _remove(folder)


def _salvage(folder: Path) -> None:
    """Archive what a run's log lacks of its live segments.

    Raises:
        StoreFull: there is no room for it.
    """
    try:
        owner = json.loads((folder / OWNER).read_text())
        log, rows, kept_bytes = Path(owner["log"]), owner["rows"], owner["kept_bytes"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):  # nobody wrote rows there
        return
    if rows != "none" and log.parent.is_dir():
        _, problems = salvage(folder, log, rows)
        for problem in problems:
            print(f"contrail: {problem}", file=sys.stderr)
        expire(log, kept_bytes)


def _has_room(wanted: int) -> bool:
    if not (SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)):
        return False
    return shutil.disk_usage(SHARED_MEMORY).free > 2 * wanted


def _remove(place: Path) -> None:
    """Remove a folder with all in it, or a link to one."""
    if place.is_symlink():
        place.unlink()
    shutil.rmtree(place, ignore_errors=True)
