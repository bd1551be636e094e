"""StaticRecall: remember, through static, a faint texture that was seen for three frames; one action in twelve pays.

The reward comes late, seldom (an eighth of the time for a random policy) and on one frame only, so it says little about
which of a thousand noisy pixels to keep. Every frame says something: whoever can tell which frames follow has found the
texture and kept it. The task asks whether a contrastive loss on the same encoder and core speeds up what reward alone
teaches slowly.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

ACTIONS = 8
SIDE = 32
FRAMES = 12
QUERY = 8
SHOWN = [0, 1, 2, 9, 10, 11]
"""Frames on which the texture is seen."""
STATIC = 160
CONTRAST = 40
BARS = np.array([0, 1, SIDE - 2, SIDE - 1])
"""Rows of the image that are white on the query frame."""


def textures() -> np.ndarray:
    """The fixed patterns, one per action, (ACTIONS, SIDE, SIDE): 8x8 random squares of 4x4 pixels, 0 or CONTRAST."""
    squares = np.random.default_rng(2026).random((ACTIONS, 8, 8)) < 0.5
    return squares.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8) * np.uint8(CONTRAST)


class StaticRecallVector(VectorEnv):
    """n environments of the task; see the module for what it asks and why it is hard.

    An episode is twelve frames, a decision on each, and a final observation:

    | frame | what is seen |
    |---|---|
    | 0-2 | static and the texture of the hidden class |
    | 3-7 | static |
    | 8 | static and white bars at top and bottom: the query. Reward 1 if the action is the class, else 0 |
    | 9-11 | static and the same texture |
    | 12 | static: the final observation, after a termination |

    Every pixel of static is a fresh uniform integer from 0 to 160, the texture adds 0 or 40: within one pixel it hides,
    over the 16 pixels of a square and several frames it does not. A return is 0 or 1; chance is 1/8, and a policy that
    remembers gets 1.

    All environments begin with frame 0 and stay in step, because an evaluation counts the first episode after a reset,
    which must be like any other. Blocks of rows still begin in every phase unless their length is a multiple of 13.

    Args:
        num_envs: n.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, num_envs: int = 1):
        self.num_envs = num_envs
        self.single_observation_space = spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
        self.single_action_space = spaces.Discrete(ACTIONS)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._textures = textures()
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
        self._frame = np.zeros(self.num_envs, dtype=np.int64)
        if seed is not None or not self._rngs:
            self._seed(seed)
        self._draw_hidden(np.arange(self.num_envs))
        return self._observation(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One frame on; where the frame was the final one, the action is ignored and the next episode begins."""
        reward = ((self._frame == QUERY) & (actions == self._hidden)).astype(np.float32)
        over = self._frame == FRAMES
        self._frame = np.where(over, 0, self._frame + 1)
        self._draw_hidden(np.flatnonzero(over))
        return self._observation(), reward, self._frame == FRAMES, np.zeros(self.num_envs, dtype=np.bool_), {}

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
            self._hidden[slot] = self._rngs[slot].integers(ACTIONS)

    def _observation(self) -> np.ndarray:
        """What is seen now, a new array (n, SIDE, SIDE)."""
        shape = (SIDE, SIDE)
        image = np.stack([rng.integers(STATIC + 1, size=shape, dtype=np.uint8) for rng in self._rngs])
        shown = np.flatnonzero(np.isin(self._frame, SHOWN))
        image[shown] += self._textures[self._hidden[shown]]
        image[np.ix_(self._frame == QUERY, BARS)] = 255
        return image


class StaticRecall(gymnasium.Env):
    """One environment of the task: a `StaticRecallVector` of one, which is reset by its owner."""

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self) -> None:
        self._one = StaticRecallVector(1)
        self.observation_space, self.action_space = self._one.single_observation_space, self._one.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As the vector's."""
        super().reset(seed=seed)
        observation, _ = self._one.reset(seed=seed)
        return observation[0], {}

    def step(self, action: int | np.integer) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As the vector's."""
        observation, reward, terminated, _, _ = self._one.step(np.array([action]))
        return observation[0], float(reward[0]), bool(terminated[0]), False, {}
