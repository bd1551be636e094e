"""The condition of a run, as its driver writes it down every few seconds: `processes.json` in the run's folder.

The driver owns the file and is the only one that writes it; each version replaces the last in one go. It is stale where
it is older than a few times `every`: then the driver is dead, or cannot write. Whoever can read the folder can tell how
the run is, on whichever machine.
"""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cluster.lock import held
from cluster.vitals import Vitals
from cluster.whole_file import replace_text

FILE, ERROR = "processes.json", Path("logs", "error.txt")
DRIVER = "driver"
UNTIL = "--run.until"
"""The flag by which a run stops before its end: why it did."""
STALE = 5
"""Versions of the file that may be missing before it is stale: a slow disk, a busy machine."""

Phase = Literal["starting", "training", "evaluating", "finished", "stopped", "failed"]
OVER: tuple[Phase, ...] = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class Condition:
    """How a run is.

    Attributes:
        title: what runs, and where.
        phase: how far it is; the last three are ends.
        why: of an end, in a few words.
        steps: env steps so far.
        of: env steps after which it ends.
        rate: env steps a second of late; None: not known.
        started: when its driver started, in seconds since 1970, as all times here.
        moved: when the last learner step ended; 0: none did since.
        written: when this was written down.
        every: seconds between two versions.
        processes: the driver first.
        verdict: what limits it of late, and the knob; "": not known.
    """

    title: str
    phase: Phase
    why: str
    steps: int
    of: int
    rate: float | None
    started: float
    moved: float
    written: float
    every: float
    processes: Sequence[Vitals]
    verdict: str = ""

    @property
    def over(self) -> bool:
        """Whether the run came to an end of some kind, and could say so."""
        return self.phase in OVER

    def write(self, folder: Path) -> None:
        """Replace the last version."""
        replace_text(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Condition | None":
        """The newest version; None: there is none, or none that can be read."""
        try:
            values = json.loads((folder / FILE).read_text())
            return cls(**{**values, "processes": [Vitals(**process) for process in values["processes"]]})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def alive(self, folder: Path) -> bool:
        """Whether the driver still works on it.

        On its own machine the lock on the folder tells at once; elsewhere only time does.
        """
        if self.over:
            return False
        if self.processes[0].host == platform.node():
            return held(folder)
        return time.time() - self.written < STALE * self.every
