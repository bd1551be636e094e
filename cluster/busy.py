"""How busy a process and a machine are, from outside of what they do."""

import asyncio
import os
import time
from pathlib import Path

BEAT = 0.1
"""Seconds between two beats of an event loop: rare enough to cost nothing."""
SECOND = 1.0
"""Cores are looked at no more often: their clock ticks a hundred times a second."""


class BusyLoop:
    """How busy the process of an event loop is: an asynchronous Ray actor's.

    The larger of two shares of wall time: that for which all its threads used a processor, and that for which the loop
    did not get to run when its time had come, since it was at something or the machine had no processor for it.
    """

    def __init__(self) -> None:
        self._late = 0.0
        self._beats: asyncio.Task[None] | None = None
        self._since = self._now()

    def share(self) -> float:
        """In [0, 1], since it was last asked for; to be called in the loop."""
        if self._beats is None:
            self._beats = asyncio.create_task(self._beat())
        (wall, used, late), self._since = self._since, self._now()
        passed = max(1e-9, self._since[0] - wall)
        return min(1.0, max(self._since[1] - used, self._since[2] - late) / passed)

    def _now(self) -> tuple[float, float, float]:
        return time.monotonic(), time.process_time(), self._late

    async def _beat(self) -> None:
        while True:
            due = time.monotonic() + BEAT
            await asyncio.sleep(BEAT)
            self._late += max(0.0, time.monotonic() - due)


class Cores:
    """How busy the processors are that this process may use, whoever uses them.

    Args:
        path: of the kernel's counters.
    """

    def __init__(self, path: Path = Path("/proc/stat")) -> None:
        self._path, self._mine = path, {f"cpu{number}" for number in os.sched_getaffinity(0)}
        self._looked, self._since = time.monotonic(), self._ticks()
        self._share: float | None = None

    def share(self) -> float | None:
        """In [0, 1], over the last second or since an earlier call; None: not known yet."""
        if time.monotonic() - self._looked < SECOND:
            return self._share
        (idle, whole), self._since, self._looked = self._since, self._ticks(), time.monotonic()
        if self._since[1] > whole:
            self._share = 1 - (self._since[0] - idle) / (self._since[1] - whole)
        return self._share

    def _ticks(self) -> tuple[int, int]:
        """Idle ones, and all."""
        lines = [line.split() for line in self._path.read_text().splitlines()]
        # user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in these already
        found = [[int(ticks) for ticks in values[:8]] for name, *values in lines if name in self._mine]
        return sum(ticks[3] + ticks[4] for ticks in found), sum(map(sum, found))
