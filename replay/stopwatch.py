"""A stopwatch: to which stage of its work each moment of a thread belongs."""

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Stopwatch:
    """Seconds per stage; every moment between two laps belongs to one, so they add up to wall time.

    It starts with its first lap, which counts nothing. A lap takes 0.2 microseconds.

    Args:
        stages: their names.
    """

    def __init__(self, stages: Iterable[str]) -> None:
        self._seconds = dict.fromkeys(stages, 0.0)
        self._last: float | None = None

    def lap(self, stage: str, until: float | None = None) -> None:
        """Counts the time since the last lap towards a stage.

        Args:
            stage: which.
            until: when it ended, by `perf_counter`, if not now; what ended before the last lap counts nothing.
        """
        now = perf_counter() if until is None else until
        if self._last is None:
            self._last = now
        elif now > self._last:
            self._seconds[stage] += now - self._last
            self._last = now

    def move(self, seconds: float, *, out_of: str, to: str) -> None:
        """Counts some of the seconds of one stage towards another instead; no more than it has."""
        seconds = min(seconds, self._seconds[out_of])
        self._seconds[out_of] -= seconds
        self._seconds[to] += seconds

    def around(self, call: Callable[[Argument], Result], *, stage: str, before: str) -> Callable[[Argument], Result]:
        """The same call of this thread, whose time belongs to a stage; what it did before belongs to another."""

        def lapped(argument: Argument) -> Result:
            self.lap(before)
            try:
                return call(argument)
            finally:
                self.lap(stage)

        return lapped

    def take(self) -> dict[str, float]:
        """Seconds by stage since the last time; it goes on."""
        taken, self._seconds = self._seconds, dict.fromkeys(self._seconds, 0.0)
        return taken
