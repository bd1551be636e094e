"""Single environments that say which one of many they are when they fail."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class EnvironmentFailed(RuntimeError):
    """An environment raised or returned nonsense while it was stepped; says which one, when, and after what action."""


class Watched(gymnasium.Wrapper):
    """One environment of several, whose exceptions and wrong shapes carry its index.

    Gymnasium's SyncVectorEnv raises whatever a single environment raises, without saying which one did.
    """

    def __init__(self, env: gymnasium.Env, *, index: int, count: int):
        super().__init__(env)
        self._name, self._steps = f"environment {index} of {count}", 0

    def reset(self, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        try:
            observation, info = self.env.reset(**keywords)
        except Exception as error:
            raise self._failure(error, "at reset") from error
        self._check(self.observation_space, observation, "observation", "at reset")
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        self._steps += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise self._failure(error, f"at step {self._steps}; last action {action}") from error
        self._check(self.observation_space, observation, "observation", f"at step {self._steps}; last action {action}")
        return observation, reward, terminated, truncated, info

    def _failure(self, error: Exception, when: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self._name} raised {type(error).__name__}: {error} {when}")

    def _check(self, space: spaces.Space, value: Any, name: str, when: str) -> None:
        if isinstance(space, spaces.Dict):
            for key, inner in space.items():
                self._check(inner, value[key], f"{name}.{key}", when)
        elif np.shape(value) != space.shape:
            wanted = f"its space says {space.shape}"
            raise EnvironmentFailed(f"{self._name} returned {name} of shape {np.shape(value)} {when}; {wanted}")
