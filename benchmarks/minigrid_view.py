"""MiniGrid's empty room with its view as a vector, for networks without convolutions; needs minigrid alone."""

import gymnasium
import numpy as np
from minigrid.envs import EmptyEnv
from minigrid.wrappers import ImgObsWrapper

LARGEST = 10.0
"""The largest number in a view, that of the agent among MiniGrid's kinds of objects."""


class EmptyView(gymnasium.ObservationWrapper):
    """`MiniGrid-Empty-8x8-v0`: 7x7 cells with kind, colour and state, (147,), of about unit size."""

    def __init__(self) -> None:
        super().__init__(ImgObsWrapper(EmptyEnv(size=8)))
        shape = self.env.observation_space.shape
        assert shape is not None
        self.observation_space = gymnasium.spaces.Box(0.0, 255 / LARGEST, (int(np.prod(shape)),), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Numbers of one view, (147,)."""
        return (observation.reshape(-1) / LARGEST).astype(np.float32)


# A function, since Gymnasium 1.2 refuses the class of a wrapper.
gymnasium.register("MiniGridEmptyView-v0", entry_point=lambda: EmptyView())
