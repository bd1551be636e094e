"""How a process of a run is, in its own words."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

State = Literal["starts", "runs", "failed", "died"]
"""Failed: with an error that it could still tell; died: without a word."""


@dataclass(frozen=True)
class Vitals:
    """How a process was when it was last heard of.

    Attributes:
        name: e.g. "actor-0"; its log is `logs/NAME.log`.
        state: whether it works.
        host: the machine that it is on.
        pid: its id there; 0: not heard of yet.
        rate: what it does in a second; None: not known yet.
        unit: of the rate, e.g. "env steps/s".
        seconds: where the time of its last block or step went, by stage.
        memory: resident bytes.
        restarts: how often it was replaced.
        heard: when it said this, in seconds since 1970.
        printed: what it printed since it was last heard of, where its log is on another machine than the run's folder.
    """

    name: str = ""
    state: State = "starts"
    host: str = ""
    pid: int = 0
    rate: float | None = None
    unit: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    memory: int = 0
    restarts: int = 0
    heard: float = 0.0
    printed: str = ""

    @property
    def mostly(self) -> str:
        """The stage that took the most time, and its share: "wait 61%"; empty where nothing is known."""
        total = sum(self.seconds.values())
        if total <= 0:
            return ""
        stage = max(self.seconds, key=lambda name: self.seconds[name])
        return f"{stage} {self.seconds[stage] / total:.0%}"


def of_this_process(
    *,
    rate: float | None = None,
    unit: str = "",
    seconds: Mapping[str, float] | None = None,
    runs: bool = True,
    printed: str = "",
) -> Vitals:
    """The vitals of the process that asks."""
    return Vitals(
        state="runs" if runs else "starts",
        host=platform.node(),
        pid=os.getpid(),
        rate=rate,
        unit=unit,
        seconds=dict(seconds or {}),
        memory=resident_bytes(),
        heard=time.time(),
        printed=printed,
    )


def resident_bytes() -> int:
    """Memory of this process that is in RAM, shared pages included, as `ps` has it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Rate:
    """What a count grows by in a second, from one look at it to the next."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def of(self, count: float) -> float | None:
        """Since the last look; None at the first."""
        last, self._last = self._last, (time.monotonic(), count)
        return None if last is None else (count - last[1]) / max(1e-9, self._last[0] - last[0])
