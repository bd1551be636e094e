"""What a run was measured to do: speeds and mean metrics after its warm-up, from `metrics.jsonl`."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.metrics import read_metrics

LEARNER_STEP = "time/total_timesteps"
"""A tag of every learner step's line, and of no other."""
RETURN = "rollout/ep_rew_mean"
DAMAGE = (ValueError, KeyError, TypeError, AttributeError)
"""What comes of lines that are no JSON, or JSON of something else."""

Rows = Sequence[Mapping[str, int | float]]


class NoMeasurement(ValueError):
    """A run that gives no measurement: says why."""


@dataclass(frozen=True)
class Measurement:
    """One run, from the end of its warm-up to its last learner step.

    Attributes:
        trained: env steps a second that learners trained on.
        generated: env steps a second that actors made.
        seconds: that were measured.
        steps: env steps at its end, warm-up among them.
        values: mean of every tag over the learner steps.
        returns: env steps, and the mean return of the last 100 training episodes then, from the run's beginning.
    """

    trained: float
    generated: float
    seconds: float
    steps: int
    values: Mapping[str, float]
    returns: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Figure:
    """A figure over repeats.

    Attributes:
        median: of the repeats.
        low: the least of them.
        high: the most.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        """That of some values, at least one."""
        return cls(statistics.median(values), min(values), max(values))


def measured_run(run: Path, warm_up: int) -> Measurement:
    """What the metrics in a run's folder tell, as `measured` does.

    Raises:
        NoMeasurement: as there, or the metrics are missing or damaged.
    """
    try:
        return measured(read_metrics(run), warm_up)
    except (OSError, ValueError) as error:  # these say what is wrong where
        raise NoMeasurement(str(error)) from error
    except DAMAGE as error:
        raise NoMeasurement(damaged(run, error)) from error


def damaged(run: Path, error: Exception) -> str:
    """That a run's metrics cannot be understood, in words."""
    return f"{run / 'metrics.jsonl'} is damaged ({type(error).__name__}: {error}): measure this run anew"


def measured(rows: Rows, warm_up: int) -> Measurement:
    """Speeds by the clock of the metrics, first to last line; not by `time/fps`, which is of a moment.

    Rows that actors commit are decisions, but for the final observation of every episode.

    Args:
        rows: of `read_metrics`.
        warm_up: learner steps that are left out, at least 1: nobody wrote when the first began.

    Raises:
        NoMeasurement: the run ended too early, or processes of it died.
    """
    steps = [row for row in rows if LEARNER_STEP in row]
    window = steps[warm_up - 1 :]
    if len(window) < 2:
        raise NoMeasurement(
            f"it ended after {len(steps)} learner steps, {warm_up} of them warm-up: raise --seconds or --steps"
        )
    first, last = window[0], window[-1]
    if deaths := last.get("health/deaths", 0.0):
        raise NoMeasurement(f"{deaths:g} of its processes died and were replaced, see faults.jsonl")
    seconds = last["time"] - first["time"]
    if seconds <= 0:
        raise NoMeasurement(f"its {len(window) - 1} learner steps took no time: raise --seconds or --steps")

    def grown(tag: str) -> float:
        return float(last.get(tag, math.nan) - first.get(tag, math.nan))

    made = grown("replay/rows_committed") - grown("rollout/episodes")
    returns = [(int(row["step"]), float(row[RETURN])) for row in steps if math.isfinite(row.get(RETURN, math.nan))]
    return Measurement(
        grown("step") / seconds, made / seconds, float(seconds), int(last["step"]), _means(window[1:]), returns
    )


def _means(rows: Rows) -> dict[str, float]:
    """Mean of every tag over the rows that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for tag, value in row.items():
            if math.isfinite(value) and tag not in ("step", "time"):
                found.setdefault(tag, []).append(value)
    return {tag: statistics.fmean(values) for tag, values in found.items()}


def return_at(measurement: Measurement, steps: int) -> float | None:
    """Mean return of the last 100 training episodes when so many env steps had been made; None: none had ended."""
    return next((value for step, value in reversed(measurement.returns) if step <= steps), None)


def together(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Median over repeats of every tag that all of them have."""
    common = set.intersection(*(set(each.values) for each in measurements))
    return {tag: statistics.median(each.values[tag] for each in measurements) for tag in sorted(common)}
