"""Deaths of a run's processes: why each died, and how long training stood still for it."""

import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from ray.exceptions import RayTaskError

from cluster.logs import last_words

FILE = "faults.jsonl"
MOST, WITHIN = 3, 5
"""So many deaths of one process, each fewer learner steps than this after the one before, end the run: whatever it dies
of is not over."""

CAUSES = {
    "its node has died": "its machine was lost",
    "temporarily unavailable": "it could not be reached: it, its machine or the network between failed",
    "running low on memory": "Ray ended it for want of memory on its machine",
    "SIGTERM": "somebody sent it SIGTERM",
    "`ray.kill`": "somebody ended it through Ray",
    "connection error code 2": "it crashed or was killed, perhaps for want of memory",
}
"""What Ray says of a dead process, and what that means."""

SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Bus error": "SIGBUS",
    "Aborted": "SIGABRT",
    "Floating point exception": "SIGFPE",
}
"""Last words of a process that a signal ends (Python's fault handler)."""


def cause_of(error: BaseException, log: Path) -> str:
    """Why a process ended, from Ray's error and the process's log."""
    if isinstance(error, RayTaskError) or not isinstance(error, Exception):
        error = getattr(error, "cause", error)
        return f"{type(error).__name__}: {error}"
    said = str(error)
    crash = " ".join(last_words(log, 40))
    for words, name in SIGNALS.items():
        if f"Fatal Python error: {words}" in crash:
            return f"it crashed ({name})"
    for words, cause in CAUSES.items():
        if words in said:
            return cause
    if "exit code" in said:
        return f"it ended itself with exit code {said.split('exit code')[-1].strip(' .')}"
    return " ".join(said.split())[:200]


class Faults:
    """The run's list of deaths, `faults.jsonl`: a line for each, and one for when training went on.

    Args:
        folder: of the run.
        say: hears of every death.

    Attributes:
        version: learner steps made so far.
    """

    def __init__(self, folder: Path, say: Callable[[str], object] = print) -> None:
        self.version, self._say = 0, say
        self._file, self._logs = folder / FILE, folder / "logs"
        self._deaths: dict[str, list[int]] = {}  # by process, the versions at which it died
        self._standing: dict[str, float] = {}  # by process, since when nothing came of it
        self._back: set[str] = set()  # of these, whose successor finished something

    def died(self, name: str, error: Exception) -> None:
        """Write a death down; another process is to take the place.

        Args:
            name: of the process.
            error: that it ended with.

        Raises:
            Exception: that error, where the process died too often.
        """
        cause = getattr(error, "cause", "") or f"{type(error).__name__}: {error}"
        deaths = self._deaths.setdefault(name, [])
        deaths.append(self.version)
        self._standing.setdefault(name, time.time())
        words = last_words(self._logs / f"{name}.log", 3)
        self._write(event="died", process=name, cause=cause, version=self.version, words=words)
        last = deaths[-MOST:]
        if len(last) == MOST and all(later - earlier < WITHIN for earlier, later in pairwise(last)):
            error.add_note(f"{name} ended {MOST} times within {last[-1] - last[0]} learner steps")
            raise error
        self._say(f"{name}: {cause}; another takes its place")

    def finished(self, name: str) -> None:
        """A process finished a block or a step."""
        if name in self._standing:
            self._back.add(name)

    def moved(self, version: int) -> None:
        """A learner step has ended: training goes on with those who finished something since they died."""
        self.version = version
        for name in self._back:
            seconds = round(time.time() - self._standing.pop(name), 3)
            self._write(event="goes on", process=name, seconds=seconds, version=version)
        self._back.clear()

    @property
    def count(self) -> int:
        """Deaths so far."""
        return sum(map(len, self._deaths.values()))

    def _write(self, **what: object) -> None:
        with open(self._file, "a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **what}) + "\n")
