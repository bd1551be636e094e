"""A run's returns beside those of runs without faults."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.chaos.checks import Finding
from benchmarks.chaos.siege import Done
from benchmarks.contrast_table import STUDENT
from cluster.metrics import read_metrics

RETURN = "rollout/ep_rew_mean"
PARTS = 10
LEAST = 0.02
"""Of the highest return: a band is at least so wide to either side. Runs that all reach the best return have none."""

Curve = tuple[np.ndarray, np.ndarray]
"""Env steps, and the mean return of the last hundred training episodes then."""


def curve(run: Path) -> Curve:
    """The learning curve of a run."""
    lines = [line for line in read_metrics(run) if RETURN in line]
    return np.array([line["step"] for line in lines]), np.array([line[RETURN] for line in lines])


def parts(of: Curve, steps: int) -> list[float]:
    """The mean return in each tenth of the env steps."""
    grid = np.linspace(0, steps, 50 * PARTS + 1)[1:]
    return [float(part.mean()) for part in np.split(np.interp(grid, *of), PARTS)]


def band(values: Sequence[float]) -> tuple[float, float]:
    """Where one more run is expected, from these: the 95 % prediction interval, by Student's t."""
    mean, count = statistics.mean(values), len(values)
    width = STUDENT[count - 1] * statistics.stdev(values) * (1 + 1 / count) ** 0.5
    width = max(width, LEAST * max(values))
    return mean - width, mean + width


def beside(run: Path, others: Sequence[Path], steps: int) -> Finding:
    """Whether a run's mean return, over all env steps and over the last fifth, is one that others of its kind have."""
    mine, theirs = parts(curve(run), steps), [parts(curve(other), steps) for other in others]
    holds, details = True, []
    for what, first in (("all", 0), ("the last fifth", PARTS - PARTS // 5)):
        low, high = band([statistics.mean(values[first:]) for values in theirs])
        value = statistics.mean(mine[first:])
        holds &= low <= value <= high
        details.append(f"{what}: {value:.1f}, expected {low:.1f} to {high:.1f}")
    return Finding("returns are those of runs without faults", bool(holds), "; ".join(details))


def draw(run: Path, others: Sequence[Path], faults: Sequence[Done], path: Path) -> None:
    """The run's curve over the others', with a mark for each fault."""
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(8, 4))
    for number, other in enumerate(others):
        axes.plot(*curve(other), color="grey", alpha=0.6, linewidth=1, label=None if number else "without faults")
    steps, returns = curve(run)
    (line,) = axes.plot(steps, returns, label="with faults")
    for number, kind in enumerate(dict.fromkeys(fault.kind for fault in faults)):
        at = [fault.step for fault in faults if fault.kind == kind]
        axes.plot(at, np.interp(at, steps, returns), "os^vDP*"[number % 7], color=f"C{number + 1}", label=kind)
    line.set_zorder(1)
    axes.set(title="CartPole, PPO", xlabel="agent steps", ylabel="return, mean of the last 100 training episodes")
    axes.legend(fontsize=8, ncols=2)
    canvas.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=130)
