"""CartPole whose every step and reset waits: what takes time without a processor, such as a simulator elsewhere."""

import time
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

MILLISECONDS = (1, 2, 5, 10, 20, 50, 100)
"""That there is an environment of: `DozingCartPole-v0` has two of them, `Dozing50CartPole-v0` fifty."""


class Dozing(CartPoleEnv):
    """CartPole that sleeps in every step and reset: each row of it takes about as long as any other.

    Args:
        seconds: that it sleeps.
    """

    def __init__(self, seconds: float = 0.002, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._seconds = seconds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As CartPole's, later."""
        time.sleep(self._seconds)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As CartPole's, later."""
        time.sleep(self._seconds)
        return super().step(action)


def dozing(milliseconds: int) -> str:
    """The id of an environment that sleeps for so long."""
    return f"benchmarks.dozing:Dozing{milliseconds}CartPole-v0"


gymnasium.register("DozingCartPole-v0", entry_point=Dozing, max_episode_steps=500)
for _each in MILLISECONDS:
    _waits = {"seconds": _each / 1000}
    gymnasium.register(f"Dozing{_each}CartPole-v0", entry_point=Dozing, max_episode_steps=500, kwargs=_waits)
