"""CartPole that dawdles: the same episodes, at a pace that nobody can foresee."""

import random
import time
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

CHANCE = random.SystemRandom()
SLOWNESS = CHANCE.choice([0.0, 0.002, 0.01])
"""Seconds that a step may take at most, another bound in every process."""


class Sleepy(CartPoleEnv):
    """Sleeps at random; its random numbers are not the environment's."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if CHANCE.random() < 0.3:
            time.sleep(CHANCE.uniform(0, SLOWNESS))
        return super().step(action)


gymnasium.register("SleepyCartPole-v0", entry_point=Sleepy, max_episode_steps=500)
gymnasium.register("AwakeCartPole-v0", entry_point=CartPoleEnv, max_episode_steps=500)
