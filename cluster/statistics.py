"""Numbers of a run as people know them: Stable-Baselines3's tags where there are some, our groups elsewhere."""

import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from actors.actor import WORKS, Report
from actors.episodes import Episode
from cluster.bottleneck import NotMeasured, Verdict, busy, verdict
from cluster.experiment import Experiment
from cluster.world import Advance

SECOND = 1.0
"""Between two verdicts, which cost more than all other numbers."""
RECENT = 10
"""Learner steps over which rates, percentiles and the verdict are taken."""


class Statistics:
    """Turns what a learner step brought into tagged values.

    `rollout/ep_rew_mean` and `rollout/ep_len_mean` are over the last 100 episodes' true returns and agent steps;
    `time/fps` is agent steps per second over the last few learner steps.

    Args:
        experiment: checked.
        window: episodes averaged.
    """

    def __init__(self, experiment: Experiment, window: int = 100) -> None:
        self.recent: deque[Episode] = deque(maxlen=window)
        self.episodes = 0
        self._experiment = experiment
        self._clock: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._steps: deque[dict[str, float]] = deque(maxlen=RECENT)
        self._way = _Way()
        self._verdict: Verdict | None = None
        self._judged = -math.inf

    def add(self, advance: Advance) -> dict[str, float]:
        """All values after a learner step."""
        for report in advance.reports:
            self.recent.extend(report.episodes)
            self.episodes += len(report.episodes)
        self._clock.append((time.monotonic(), advance.steps))
        values = advance.metrics | self._rates() | _stages(advance.reports)
        values |= self._way.of(advance) | busy(values, self._experiment)
        if len(shares := [_works(report) for report in advance.reports]) > 1:
            values["bottleneck/slowest_actor_busy"] = max(shares)
        self._steps.append({tag: value for tag, value in values.items() if tag.startswith(("time/", "bottleneck/"))})
        values["rollout/episodes"] = float(self.episodes)
        if self.recent:
            values["rollout/ep_rew_mean"] = float(np.mean([episode.total for episode in self.recent]))
            values["rollout/ep_len_mean"] = float(np.mean([episode.length for episode in self.recent]))
        return values

    def verdict(self) -> Verdict | None:
        """What limits the run of late, found once a second; None: not known yet."""
        if time.monotonic() - self._judged > SECOND:
            means = _means(self._steps)
            with suppress(NotMeasured):
                self._verdict, self._judged = verdict(means, self._experiment), time.monotonic()
        return self._verdict

    def _rates(self) -> dict[str, float]:
        (then, before), (now, after) = self._clock[0], self._clock[-1]
        rate = {} if now == then else {"time/fps": (after - before) / (now - then)}
        return rate | {"time/total_timesteps": float(after)}


class _Way:
    """The way of weights to the actors: when each version was published, and how long actors waited for it."""

    def __init__(self) -> None:
        self._published: dict[int, float] = {}
        self._seconds: deque[list[float]] = deque(maxlen=RECENT)

    def of(self, advance: Advance) -> dict[str, float]:
        """Seconds from publishing to having loaded, and the share of their time that actors waited for what was out.

        A version that was published before the first learner step of this start is not known, and left out.
        """
        self._published[advance.version] = advance.metrics.get("facts/published", 0.0)
        for version in [version for version in self._published if version < advance.version - 10 * RECENT]:
            del self._published[version]
        known = {report.version: self._published.get(report.version) for report in advance.reports}
        # Clocks of two machines differ by a little: nothing loads what is not there yet.
        took = [
            (max(0.0, report.loaded[1] - out), max(0.0, report.loaded[1] - max(out, report.loaded[0])))
            for report in advance.reports
            if report.loaded and (out := known[report.version])
        ]
        self._seconds.append([whole for whole, _ in took])
        recent = sorted(seconds for step in self._seconds for seconds in step)
        values = {f"time/weight_sync_p{q}": nearest(recent, q / 100) for q in (50, 99) if recent}
        if took or any(not report.loaded for report in advance.reports):
            whole = sum(sum(report.seconds.values()) for report in advance.reports)
            values["bottleneck/weights_wait"] = sum(waited for _, waited in took) / whole if whole else 0.0
        return values


def _means(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each tag's values; a share of a learner step that took long counts for longer."""
    took = [sum(value for tag, value in step.items() if tag.startswith("time/learner_")) for step in steps]
    means: dict[str, float] = {}
    for tag in {tag for step in steps for tag in step}:
        share = tag.startswith("bottleneck/")
        found = [
            (step[tag], max(1e-9, seconds) if share else 1.0)
            for step, seconds in zip(steps, took, strict=True)
            if tag in step
        ]
        means[tag] = sum(value * weight for value, weight in found) / sum(weight for _, weight in found)
    return means


def _stages(reports: list[Report]) -> dict[str, float]:
    """Seconds per block that the mean actor spent in each stage."""
    if not reports:
        return {}
    names = reports[0].seconds
    return {f"time/actor_{name}": mean([report.seconds[name] for report in reports]) for name in names}


def _works(report: Report) -> float:
    """The share of its time in which an actor did not wait."""
    seconds = report.seconds
    return sum(seconds[stage] for stage in WORKS) / max(1e-9, sum(seconds.values()))


def mean(values: Sequence[float]) -> float:
    """As numpy's, which takes ten times as long for a few numbers."""
    return sum(values) / len(values)


def nearest(ordered: Sequence[float], share: float) -> float:
    """The smallest of some values up to which at least a share of them lie."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
