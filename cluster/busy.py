"""How busy a process and a machine are, from outside of what they do."""

import asyncio
import os
import time
from pathlib import Path

BEAT = 0.1
"""Seconds between two beats of an event loop: rare enough to cost nothing."""
THREAD = Path("/proc/thread-self/schedstat")
"""Nanoseconds for which this thread used a processor, and stood in line for one, where the kernel counts them."""
SECOND = 1.0
"""Cores are looked at no more often: their clock ticks a hundred times a second."""


class BusyLoop:
    """How busy the process of an event loop is: an asynchronous Ray actor's.

    The largest of three shares of wall time: that for which all its threads used a processor; that for which the loop's
    thread used one or stood in line for one; and that by which the loop came late when its time had come, because it
    was at something, or was stopped.
    """

    def __init__(self) -> None:
        self._late = 0.0
        self._beats: asyncio.Task[None] | None = None
        self._looked, self._since = 0.0, (0.0, 0.0, 0.0)

    def share(self) -> float:
        """In [0, 1], since it was last asked for, at first 0; to be called in the loop."""
        (looked, before), self._looked, self._since = (self._looked, self._since), time.monotonic(), self._seconds()
        if self._beats is None:
            self._beats = asyncio.create_task(self._beat())
            return 0.0
        spent = [now - then for now, then in zip(self._since, before, strict=True)]
        return min(1.0, max(0.0, *spent) / max(1e-9, self._looked - looked))

    def _seconds(self) -> tuple[float, float, float]:
        on_processor, in_line = THREAD.read_text().split()[:2] if THREAD.exists() else (0, 0)
        return time.process_time(), (int(on_processor) + int(in_line)) / 1e9, self._late

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
