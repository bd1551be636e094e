"""How long a rank's sums over all ranks take, waiting for the others included."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch


class SumClock:
    """Seconds that pass on a device while ranks add up.

    On a GPU the work is only given to a stream, and there its time is taken by events, which nobody waits for.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Counts the time of what is done meanwhile."""
        if device.type != "cuda":
            started = perf_counter()
            yield
            self._seconds += perf_counter() - started
            return
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        self._events.append((begin, end))

    def take(self) -> float:
        """Seconds since the last time; when the device has done what was given to it."""
        taken = self._seconds + sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        self._seconds, self._events = 0.0, []
        return taken
