"""Numbers of a run as people know them: Stable-Baselines3's tags where there are some, our groups elsewhere."""

import time
from collections import deque

import numpy as np

from actors.actor import Report
from actors.episodes import Episode
from cluster.world import Advance


class Statistics:
    """Turns what a learner step brought into tagged values.

    `rollout/ep_rew_mean` and `rollout/ep_len_mean` are over the last 100 episodes' true returns and agent steps;
    `time/fps` is agent steps per second over the last few learner steps.

    Args:
        window: episodes averaged.
    """

    def __init__(self, window: int = 100) -> None:
        self.recent: deque[Episode] = deque(maxlen=window)
        self.episodes = 0
        self._clock: deque[tuple[float, int]] = deque(maxlen=10)

    def add(self, advance: Advance) -> dict[str, float]:
        """All values after a learner step."""
        for report in advance.reports:
            self.recent.extend(report.episodes)
            self.episodes += len(report.episodes)
        self._clock.append((time.monotonic(), advance.steps))
        values = advance.metrics | self._rates() | _stages(advance.reports)
        values["rollout/episodes"] = float(self.episodes)
        if self.recent:
            values["rollout/ep_rew_mean"] = float(np.mean([episode.total for episode in self.recent]))
            values["rollout/ep_len_mean"] = float(np.mean([episode.length for episode in self.recent]))
        return values

    def _rates(self) -> dict[str, float]:
        (then, before), (now, after) = self._clock[0], self._clock[-1]
        rate = {} if now == then else {"time/fps": (after - before) / (now - then)}
        return rate | {"time/total_timesteps": float(after)}


def _stages(reports: list[Report]) -> dict[str, float]:
    """Seconds per block that the mean actor spent in each stage."""
    if not reports:
        return {}
    names = reports[0].seconds
    return {f"time/actor_{name}": float(np.mean([report.seconds[name] for report in reports])) for name in names}
