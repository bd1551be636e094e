"""CartPole whose every step waits: what takes time without a processor, such as a simulator elsewhere."""

import time
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

SECONDS = 0.002


class Dozing(CartPoleEnv):
    """CartPole that sleeps in every step."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of CartPole, `SECONDS` later."""
        time.sleep(SECONDS)
        return super().step(action)


gymnasium.register("DozingCartPole-v0", entry_point=Dozing, max_episode_steps=500)
