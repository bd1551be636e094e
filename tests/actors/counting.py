"""Environments whose observations say which stream, episode and step they are, so that any row proves its origin."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

EVERY = -1


def episode_length(seed: int, episode: int) -> int:
    """Actions in an episode: differs between streams and episodes, and may be 1."""
    return 1 + (3 * seed + 2 * episode) % 5


class Counting(gymnasium.Env):
    """Observes (seed, episode, step); even episodes terminate, odd ones are truncated.

    Args:
        fault: what goes wrong, "raise", "nan", "shape", "reward", or "" for nothing.
        fault_seed: in the environment with this seed, or in EVERY one.
        fault_step: in its step with this number, counted from 1 over all episodes.
    """

    def __init__(self, fault: str = "", fault_seed: int = 1, fault_step: int = 3):
        self.observation_space = spaces.Box(-1e6, 1e6, (3,), np.float32)
        self.action_space = spaces.Discrete(3)
        self._fault, self._fault_seed, self._fault_step = fault, fault_seed, fault_step
        self._seed, self._episode, self._step, self._steps = -1, -1, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._seed, self._episode = seed, -1
        self._episode, self._step = self._episode + 1, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step, self._steps = self._step + 1, self._steps + 1
        ended = self._step == episode_length(self._seed, self._episode)
        even = self._episode % 2 == 0
        observation, reward = self._observation(), reward_of(self._seed, self._step, int(action))
        if self._fault_seed in (self._seed, EVERY) and self._steps == self._fault_step:
            observation, reward = self._broken(observation, reward)
        return observation, reward, ended and even, ended and not even, {}

    def _observation(self) -> Any:
        return np.array([self._seed, self._episode, self._step], dtype=np.float32)

    def _broken(self, observation: np.ndarray, reward: float) -> tuple[np.ndarray, float]:
        if self._fault == "raise":
            raise ValueError("the cart fell off")
        if self._fault == "reward":
            return observation, float("inf")
        return (observation * np.nan, reward) if self._fault == "nan" else (observation[:2], reward)


class CountingDict(Counting):
    """The same, as a nested Dict with an image."""

    def __init__(self) -> None:
        super().__init__()
        camera = spaces.Dict({"left": spaces.Box(0, 255, (2, 4), np.uint8)})
        self.observation_space = spaces.Dict({"camera": camera, "place": self.observation_space})

    def _observation(self) -> Any:
        place = super()._observation()
        return {"place": place, "camera": {"left": np.full((2, 4), place[2], dtype=np.uint8)}}


class Echo(gymnasium.Env):
    """Observes the action that it was given; the box is [-1, 2] in each of two dimensions."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-10, 10, (2,), np.float32)
        self.action_space = spaces.Box(-1, 2, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array(action), 0.0, False, False, {}


def reward_of(seed: int, step: int, action: int) -> float:
    """What a step pays."""
    return seed + 0.25 * step + 0.125 * action


gymnasium.register("Counting-v0", entry_point=Counting)
gymnasium.register("CountingRaise-v0", entry_point=lambda: Counting(fault="raise", fault_seed=EVERY))
gymnasium.register("CountingDict-v0", entry_point=CountingDict)
gymnasium.register("Echo-v0", entry_point=Echo)
