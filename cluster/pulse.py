"""The driver's pulse: how its processes are, written down every few seconds, and the error that ends the run."""

import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Protocol, runtime_checkable

from cluster.condition import DRIVER, ERROR, OVER, Condition, Phase
from cluster.logs import last_words
from cluster.vitals import Vitals, of_this_process

EVERY = 3.0
"""Seconds between two versions of `processes.json`."""
LAST_WORDS = 20
"""Lines of a process's log that are kept with the error that it ended by."""


@runtime_checkable
class Crew(Protocol):
    """The processes that a driver owns: a `cluster.world.World`."""

    def vitals(self) -> list[Vitals]:
        """How they are; does not wait, and takes any thread."""
        ...

    def culprit(self) -> str:
        """Which of them ended by itself before any other; empty: none."""
        ...


class Pulse:
    """Writes a run's `processes.json` from its start to its end, in a thread of its own: long steps do not stop it.

    Args:
        folder: of the run.
        title: what runs.
        of: env steps after which it ends.
        every: seconds between two versions.
    """

    def __init__(self, folder: Path, *, title: str, of: int, every: float = EVERY) -> None:
        self._folder, self._every = folder, every
        self._crew: Crew | None = None
        self._culprit = ""
        now = time.time()
        self._last = Condition(title, "starting", "", 0, of, None, now, 0.0, now, every, ())
        self._ended = Event()
        self._thread = Thread(target=self._beat, name="pulse", daemon=True)

    def __enter__(self) -> "Pulse":
        with suppress(OSError):
            (self._folder / ERROR).unlink(missing_ok=True)  # that of an earlier start
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ended.set()
        self._thread.join()
        if isinstance(error, Exception):
            self._note_failure(error)
        elif error is not None:
            self.phase("stopped", "interrupted")
        elif self._last.phase not in OVER:
            self.phase("finished")
        self._write()

    def follow(self, crew: Crew) -> None:
        """Tell of its processes, too, from now on."""
        self._crew = crew

    def phase(self, phase: Phase, why: str = "") -> None:
        """The run is in another phase."""
        self._last = replace(self._last, phase=phase, why=why)

    def says(self, why: str) -> None:
        """Why nothing moves just now."""
        self._last = replace(self._last, why=why)

    def goes_on(self, steps: int) -> None:
        """The run has so many env steps from an earlier start."""
        self._last = replace(self._last, steps=steps)

    def moved(self, steps: int, rate: float | None, verdict: str = "") -> None:
        """A learner step has ended.

        Args:
            steps: env steps so far.
            rate: env steps a second; None: not known.
            verdict: what limits it.
        """
        now = time.time()
        self._last = replace(self._last, phase="training", why="", steps=steps, rate=rate, moved=now, verdict=verdict)

    def _beat(self) -> None:
        while not self._ended.wait(self._every):
            self._write()

    def _write(self) -> None:
        last = self._last
        with suppress(OSError):  # a full disk: the metrics cannot be written either, and that ends the run with a word
            driver = of_this_process(rate=last.rate, unit="env steps/s", runs=last.phase != "starting")
            driver = replace(driver, name=DRIVER, state="failed" if self._culprit == DRIVER else driver.state)
            processes = [driver, *(self._crew.vitals() if self._crew else ())]
            replace(last, written=time.time(), processes=processes).write(self._folder)

    def _note_failure(self, error: Exception) -> None:
        """Keep what ended the run: the traceback for those who mend it, and on top who, what and when."""
        self._culprit = culprit = (self._crew.culprit() if self._crew else "") or DRIVER
        logs = self._folder / "logs"
        what = " ".join(f"{type(error).__name__}: {error}".split())
        self.phase("failed", f"{culprit}: {what}")
        words = last_words(logs / f"{culprit}.log", LAST_WORDS)
        lines = [f"{time.strftime('%Y-%m-%d %H:%M:%S')} {culprit}: {what}"]
        lines += [f"last words of {culprit}:", *(f"  {line}" for line in words)] if words else []
        with suppress(OSError), open(logs / "failure.log", "a") as file:  # on a full disk the error is what matters
            traceback.print_exception(error, file=file)
            error.add_note(f"traceback: {logs / 'failure.log'}")
            (self._folder / ERROR).write_text("\n".join([*lines, "traceback: logs/failure.log"]) + "\n")
