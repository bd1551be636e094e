"""What the sum tree costs a learner step, in draws and in updates of priorities, beside a plain cumulative sum.

    python -m benchmarks.replay.sum_tree --leaves 1000000 --count 256

Prints one JSON line: medians in microseconds, and whether they are within the bars. "numba" is what a store uses where
numba is installed and is left out elsewhere, "numpy" the same tree without it, "cumsum" an array of masses that each
draw sums up and searches.
"""

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from replay.sum_tree import SumTree

BARS = {"sample": 60.0, "update": 10.0}


class Masses(Protocol):
    """What is measured."""

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Slots (count,) in proportion to their masses."""

    def update(self, slots: np.ndarray, masses: np.ndarray) -> None:
        """Write masses (n,) of slots (n,)."""


class Cumsum:
    """Masses in an array, and nothing else."""

    def __init__(self, leaves: int) -> None:
        self._masses = np.zeros(leaves)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Slots (count,), one from each of `count` equal parts of the sum."""
        sums = np.cumsum(self._masses)
        return np.searchsorted(sums, (np.arange(count) + rng.random(count)) / count * sums[-1], side="right")

    def update(self, slots: np.ndarray, masses: np.ndarray) -> None:
        """Write masses (n,) of slots (n,)."""
        self._masses[slots] = masses


def median(action: Callable[[], object], *, seconds: float) -> float:
    """Median microseconds of an action, repeated for so long and at least ten times, the first time not counted."""
    action()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 10 or time.perf_counter() < end:
        begin = time.perf_counter()
        action()
        taken.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(taken)


def measure(masses: Masses, *, leaves: int, count: int, seconds: float) -> dict[str, float]:
    """Microseconds of one `sample` and one `update` of `count` slots, other slots each time."""
    rng = np.random.default_rng(0)
    masses.update(np.arange(leaves), rng.random(leaves))
    changes = [(rng.integers(0, leaves, count), rng.random(count)) for _ in range(1000)]
    turns = iter(changes * 10_000)
    return {
        "sample": round(median(lambda: masses.sample(count, rng), seconds=seconds), 1),
        "update": round(median(lambda: masses.update(*next(turns)), seconds=seconds), 1),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=1_000_000, help="slots with a mass")
    parser.add_argument("--count", type=int, default=256, help="slots that are drawn and updated at a time")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    arguments = parser.parse_args()
    measured: dict[str, Masses] = {"numpy": SumTree(compiled=False), "cumsum": Cumsum(arguments.leaves)}
    if importlib.util.find_spec("numba") is not None:
        measured = {"numba": SumTree(), **measured}
    results = {name: measure(masses, **vars(arguments)) for name, masses in measured.items()}
    within = {name: {part: row[part] <= bar for part, bar in BARS.items()} for name, row in results.items()}
    facts = {"leaves": arguments.leaves, "count": arguments.count, "unit": "us", "bars": BARS}
    print(json.dumps({"benchmark": "sum_tree", **facts, "results": results, "within_bars": within}))


if __name__ == "__main__":
    main()
