"""CartPole without velocities: only positions are seen, so that where things move must be remembered."""

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

SEEN = [0, 2]
"""The cart's position and the pole's angle, of the four numbers of CartPole."""


class CartPoleNoVelocity(gymnasium.ObservationWrapper):
    """CartPole whose observation is position and angle; rewards, actions and ends are CartPole's.

    A policy without memory keeps the pole up for some fifty steps at most.
    """

    def __init__(self) -> None:
        super().__init__(CartPoleEnv())
        whole = self.env.observation_space
        assert isinstance(whole, gymnasium.spaces.Box)
        self.observation_space = gymnasium.spaces.Box(whole.low[SEEN], whole.high[SEEN], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Position and angle, (2,)."""
        return observation[SEEN]
