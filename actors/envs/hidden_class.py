"""Environments with a hidden class: frames tell it under static, and one action in each episode pays for naming it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

SIDE = 32
BARS = np.array([0, 1, SIDE - 2, SIDE - 1])
"""Rows of the image that are white on the query frame."""


class HiddenClassVector(VectorEnv):
    """n environments of such a task: classes, frames, seeds and rewards. A subclass says what a frame shows.

    Every pixel of static is a fresh uniform integer. An action counts on the query frame only: reward 1 if it is the
    class, else 0, so a return is 0 or 1.

    Args:
        num_envs: n.
        static: the largest value of a pixel of static.

    Attributes:
        actions: how many of them.
        classes: how many hidden ones, one of which is drawn for each episode.
        frames: decisions in an episode; a final observation follows them.
        query: number of the frame that asks.
        contrast: what a texture adds to its pixels.

    Raises:
        ValueError: static that leaves no room for the texture below 255.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 - Gymnasium's declaration
    actions: ClassVar[int]
    classes: ClassVar[int]
    frames: ClassVar[int]
    query: ClassVar[int]
    contrast: ClassVar[int]

    def __init__(self, num_envs: int, static: int):
        if not 0 <= static <= 255 - self.contrast:
            raise ValueError(f"static is {static}, wanted 0 to {255 - self.contrast}: the texture adds {self.contrast}")
        self.num_envs, self.static = num_envs, static
        self.single_observation_space = spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
        self.single_action_space = spaces.Discrete(self.actions)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._rngs: list[np.random.Generator] = []
        self._frame = np.zeros(num_envs, dtype=np.int64)
        self._hidden = np.zeros(num_envs, dtype=np.int64)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes everywhere.

        Args:
            seed: one per environment, or one for all, from which each derives its own; None goes on with the present
                generators.
            options: none are known.
        """
        self._frame = self._first_frames()
        if seed is not None or not self._rngs:
            self._seed(seed)
        self._draw_hidden(np.arange(self.num_envs))
        return self._observation(), self._info()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One frame on; where the frame was the final one, the action is ignored and the next episode begins."""
        reward = ((self._frame == self.query) & (actions == self._hidden)).astype(np.float32)
        over = self._frame == self.frames
        self._frame = np.where(over, 0, self._frame + 1)
        self._draw_hidden(np.flatnonzero(over))
        unlimited = np.zeros(self.num_envs, dtype=np.bool_)
        return self._observation(), reward, self._frame == self.frames, unlimited, self._info()

    def _first_frames(self) -> np.ndarray:
        """The frame (n,) with which each environment begins after a reset."""
        return np.zeros(self.num_envs, dtype=np.int64)

    def _seed(self, seed: int | Sequence[int] | None) -> None:
        if seed is None or isinstance(seed, int | np.integer):
            seeds: Sequence[Any] = np.random.SeedSequence(seed).spawn(self.num_envs)
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} environments: give one each, or one for all")
        self._rngs = [np.random.default_rng(each) for each in seeds]

    def _draw_hidden(self, slots: np.ndarray) -> None:
        for slot in slots:
            self._hidden[slot] = self._rngs[slot].integers(self.classes)

    def _info(self) -> dict[str, Any]:
        """What a probe is told: numbers (n,) by name."""
        return {"class": self._hidden.copy()}

    def _observation(self) -> np.ndarray:
        """What is seen now, a new array (n, SIDE, SIDE): static, what the task draws over it, bars on the query."""
        shape = (SIDE, SIDE)
        image = np.stack([rng.integers(self.static + 1, size=shape, dtype=np.uint8) for rng in self._rngs])
        self._draw(image)
        image[np.ix_(self._frame == self.query, BARS)] = 255
        return image

    def _draw(self, image: np.ndarray) -> None:
        """Add the texture to the images (n, SIDE, SIDE), in place."""
        raise NotImplementedError


class One(gymnasium.Env):
    """One environment of such a task: a vector of one, which is reset by its owner.

    Args:
        vector: of one environment.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, vector: HiddenClassVector) -> None:
        self._vector = vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As the vector's."""
        super().reset(seed=seed)
        observation, _ = self._vector.reset(seed=seed)
        return observation[0], {}

    def step(self, action: int | np.integer) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As the vector's."""
        observation, reward, terminated, truncated, _ = self._vector.step(np.array([action]))
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}


def squares(actions: int, side: int, contrast: int) -> np.ndarray:
    """The fixed patterns, one per action, (actions, 4 side, 4 side): random squares of 4x4 pixels, 0 or `contrast`."""
    drawn = np.random.default_rng(2026).random((actions, side, side)) < 0.5
    return drawn.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8) * np.uint8(contrast)
