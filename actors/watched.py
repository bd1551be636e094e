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
        self._seen = env.observation_space  # asked for at every step, and each wrapper asks the next

    def reset(self, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        try:
            observation, info = self.env.reset(**keywords)
        except Exception as error:
            raise self._failure(error, "at reset") from error
        if wrong := misshapen(self._seen, observation):
            raise EnvironmentFailed(f"{self._name} returned {wrong} at reset")
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        self._steps += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise self._failure(error, self._when(action)) from error
        if wrong := misshapen(self._seen, observation):
            raise EnvironmentFailed(f"{self._name} returned {wrong} {self._when(action)}")
        return observation, reward, terminated, truncated, info

    def _when(self, action: Any) -> str:
        """Only for those that failed: to write an array takes longer than a step of a small environment."""
        return f"at step {self._steps}; last action {action}"

    def _failure(self, error: Exception, when: str) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self._name} raised {type(error).__name__}: {error} {when}")


def misshapen(space: spaces.Space, value: Any, name: str = "observation") -> str:
    """What is wrong with the shape of a value of a space; empty: nothing."""
    if isinstance(space, spaces.Dict):
        return next(filter(None, (misshapen(inner, value[key], f"{name}.{key}") for key, inner in space.items())), "")
    got = np.shape(value)
    return "" if got == space.shape else f"{name} of shape {got}, where its space says {space.shape},"
