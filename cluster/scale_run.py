"""One run that is measured: `contrail train` in a process of its own, ended in order when there is enough of it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from cluster import sweep_process
from cluster.condition import Condition
from cluster.following import NewRows
from cluster.logs import last_words
from cluster.run_folder import RunFolderError
from cluster.scale_folder import ScaleFolder
from cluster.scale_measure import DAMAGE, LEARNER_STEP, damaged
from cluster.scale_plan import Point
from cluster.stop import StopRequest
from cluster.sweep_folder import locked

POLL = 0.2
"""Seconds between two looks at a run's files."""
LATE = 180.0
"""Seconds that a run may take to write its checkpoint and end."""
LEAST = 2
"""Learner steps after the warm-up that are measured at least, however few seconds are asked for."""

Carry = Callable[[ScaleFolder, Point, int], str]
"""Carries out a repeat of a configuration; what went wrong, empty for nothing."""


class Progress:
    """How far a run is, from the metrics that it writes.

    Args:
        run: its folder.
        warm_up: learner steps that are not measured.
    """

    def __init__(self, run: Path, warm_up: int) -> None:
        self._rows, self._warm_up = NewRows(run), warm_up
        self._count, self._began, self._last = 0, 0.0, 0.0
        self._heard = time.monotonic()

    def look(self) -> None:
        """Read what is new."""
        for row in self._rows.read():
            if LEARNER_STEP in row:
                self._count, self._last, self._heard = self._count + 1, row["time"], time.monotonic()
                if self._count == self._warm_up:
                    self._began = row["time"]

    def enough(self, seconds: float) -> bool:
        """Whether so many seconds were measured."""
        return self._count >= self._warm_up + LEAST and self._last - self._began >= seconds

    @property
    def silent(self) -> float:
        """Seconds since the last learner step, or the start."""
        return time.monotonic() - self._heard


class Process:
    """Runs `contrail train`; a `Carry`.

    Args:
        stop: passed on to the run.
        late: seconds that a run may take to end before it is asked again, and then killed.
    """

    def __init__(self, stop: StopRequest, late: float = LATE) -> None:
        self._stop, self._late = stop, late

    def __call__(self, scale: ScaleFolder, point: Point, repeat: int) -> str:
        """What went wrong, empty for nothing; whatever happens, the process has ended then."""
        output, run = scale.output(point, repeat), scale.run(point, repeat)
        arguments = ["train", scale.recipe, *scale.arguments(point, repeat)]
        process = sweep_process.start(arguments, folder=scale.folder, output=output, driver=os.getpid())
        try:
            trouble, enough = self._follow(process, scale, run)
        finally:
            _end(process, self._late)
        if trouble or self._stop.signal or process.returncode in (0, 128 + signal.SIGTERM):
            return trouble
        error = why(run, output, process.returncode)
        if not enough:
            return error
        print(f"{point.name}, repeat {repeat + 1} was measured, but did not end in order: {error}", flush=True)
        return ""

    def _follow(self, process: "subprocess.Popen[bytes]", scale: ScaleFolder, run: Path) -> tuple[str, bool]:
        """Wait until the run has ended, was measured or is to stop; what went wrong, and whether it was measured."""
        options, progress = scale.options, Progress(run, scale.options.warm_up)
        while process.poll() is None and not self._stop.signal:
            try:
                progress.look()
            except DAMAGE as error:
                return damaged(run, error), False
            if not options.steps and progress.enough(options.seconds):
                return "", True
            if progress.silent > options.patience:
                condition = Condition.read(run)
                waits = f": {condition.why}" if condition and condition.why else ""
                return f"no learner step in {options.patience:g} s{waits}", False
            time.sleep(POLL)
        return "", False


def await_ends(runs: Iterable[Path], stop: StopRequest, late: float = LATE) -> None:
    """Wait for runs whose measurement was killed outright: they still write their checkpoint.

    Args:
        runs: their folders, which may not be there.
        stop: ends the wait.
        late: seconds that all of them may take.

    Raises:
        RunFolderError: one takes longer.
    """
    deadline = time.monotonic() + late
    for run in runs:
        if locked(run):
            print(f"waiting for the process that still writes {run}, up to {late:g} s", flush=True)
        while locked(run) and not stop.signal:
            if time.monotonic() >= deadline:
                raise RunFolderError(
                    f"{run} is still written by another process after {late:g} s: wait for it or stop it, then go on"
                )
            time.sleep(POLL)


def _end(process: "subprocess.Popen[bytes]", late: float) -> None:
    """Ask a process to stop and wait for its checkpoint; one that does not come to it is ended."""
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # the second one interrupts whatever it does
        if process.poll() is None:
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(late)


def why(run: Path, output: Path, code: int) -> str:
    """Why a run has failed, in one line."""
    condition = Condition.read(run)
    if condition is not None and condition.phase == "failed":
        return condition.why
    said = last_words(output, 20)
    told = [line.removeprefix("contrail: ") for line in said if line.startswith("contrail: ")]
    return (told or said[-1:] or [f"it ended with exit code {code}"])[0]
