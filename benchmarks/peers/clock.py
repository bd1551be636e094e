"""The clock of a peer's script: what the script is asked for and what it prints. Needs Python alone."""

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.timed import cpu_seconds

EPISODES = 100
"""Whose mean return is looked at."""


class Clock:
    """Notes when iterations end, and says when there were enough.

    Attributes:
        steps: agent steps of the whole run, over which a learning rate falls.
        done: whether they are done, or the wanted mean return is reached.
    """

    def __init__(self, steps: int, *, warm_up: int = 0, until: float = float("inf")) -> None:
        """Starts nothing.

        Args:
            steps: agent steps of the whole run.
            warm_up: agent steps before those that are counted.
            until: a mean return that ends the run.
        """
        self.steps, self.done = steps, False
        self._warm_up, self._until, self._mean = warm_up, until, float("-inf")
        self._ends: list[tuple[int, float]] = []
        self._used: list[float] = []

    def iteration(self, steps: int, returns: Sequence[float] = ()) -> bool:
        """Note the end of one, of acting and learning; whether it was the last.

        Args:
            steps: agent steps of the run so far.
            returns: of the latest training episodes, at most a hundred.
        """
        self._mean = fmean(returns) if len(returns) == EPISODES else float("-inf")
        self.done = steps >= self.steps or self._mean >= self._until
        if steps >= self._warm_up:
            self._ends.append((steps, time.time()))
            if len(self._ends) == 1 or self.done:  # only then: it looks at every process of the system
                self._used.append(cpu_seconds(os.getpid()))
        return self.done

    def told(self) -> str:
        """The JSON line: speed and processor's time after the warm-up, and when the wanted return was there."""
        (first, began), (last, ended) = self._ends[0], self._ends[-1]
        solved = self._mean >= self._until
        told = {
            "steps_per_second": (last - first) / (ended - began),
            "cpu_microseconds": 1e6 * (self._used[-1] - self._used[0]) / (last - first),
            "first_step": began,
            "solved": ended if solved else None,
            "steps": last,
            "mean_return": self._mean if self._mean > float("-inf") else None,
        }
        return json.dumps(told)


def asked(description: str) -> tuple[dict[str, Any], Clock]:
    """The run and its clock, as the command line has them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=json.loads, help="the run, as JSON")
    parser.add_argument("--iterations", type=int, default=0, help="counted; 0: as many as the run's steps")
    parser.add_argument("--warm-up", type=int, default=0, help="iterations that come first")
    parser.add_argument("--until", type=float, default=float("inf"), help="a mean return that ends the run")
    arguments = parser.parse_args()
    batch = arguments.run["envs"] * arguments.run["rows"]
    whole = math.ceil(arguments.run["steps"] / batch)
    iterations = arguments.iterations + arguments.warm_up if arguments.iterations else whole
    return arguments.run, Clock(iterations * batch, warm_up=arguments.warm_up * batch, until=arguments.until)
