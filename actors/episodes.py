"""Which episode each stream is in, and what the finished ones amounted to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Episode:
    """One episode, as the environment scored it.

    Attributes:
        total: undiscounted sum of its rewards, in the environment's units, neither clipped nor scaled.
        length: its agent steps, i.e. decisions.
        stream: the environment slot that it was played in.
        finished: False when it was cut off by an evaluator's cap, not by the environment.
    """

    total: float
    length: int
    stream: int
    finished: bool = True


class Episodes:
    """Running totals of the episodes that n streams are in.

    After an end, `number` and `step` describe the final observation, which still belongs to the episode. The next
    episode begins with the first `update` that has `decided` False, or with `begin` where an environment has already
    been reset.

    Attributes:
        number: (n,) int64, id of the episode that the latest observation belongs to: stream * 2**32 + count.
        step: (n,) int32, index of the latest observation inside its episode.
        discounted: (n,) float32, discounted return up to and including the latest reward, G_t = r_t + gamma G_{t-1};
            what reward scaling divides by the standard deviation of. 0 on a row without a decision.
    """

    def __init__(self, streams: Sequence[int], gamma: float):
        self._streams = [int(stream) for stream in streams]
        self._gamma = np.float32(gamma)
        self.number = np.asarray(self._streams, dtype=np.int64) << 32
        self.step = np.zeros(len(self._streams), dtype=np.int32)
        self.discounted = np.zeros(len(self._streams), dtype=np.float32)
        self._total = np.zeros(len(self._streams), dtype=np.float64)

    def update(self, reward: np.ndarray, decided: np.ndarray, ended: np.ndarray) -> list[Episode]:
        """Accounts for one vector step and returns the episodes that it finished.

        The attributes are replaced, never written to, so rows may keep the arrays they were given.

        Args:
            reward: (n,) received in this step.
            decided: (n,) False where the step was the reset after a final observation.
            ended: (n,) terminated or truncated.
        """
        self._total += reward
        self.discounted = reward + self._gamma * self.discounted
        self.step = self.step + np.int32(1)
        if not decided.all():
            self.begin(np.flatnonzero(~decided))
        return [self._finished(slot) for slot in np.flatnonzero(ended)] if ended.any() else []

    def begin(self, slots: np.ndarray) -> None:
        """Moves these slots on to the first observation of their next episode."""
        self.number, self.step, self.discounted = self.number.copy(), self.step.copy(), self.discounted.copy()
        self.number[slots] += 1
        self.step[slots] = 0
        self.discounted[slots] = 0
        self._total[slots] = 0

    def _finished(self, slot: np.intp) -> Episode:
        return Episode(float(self._total[slot]), int(self.step[slot]), self._streams[slot])
