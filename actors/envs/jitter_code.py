"""JitterCode: name one of sixteen faint textures, seen under static and never twice at the same place.

Nothing need be remembered: the frame that asks shows the texture, too. What is hard is to see it: a random policy is
right once in sixteen episodes, and the reward says nothing about the seven frames before. All frames of an episode
show the same class, and no two of them the same pixels, so whoever can tell which frames belong together has found it.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from actors.envs.hidden_class import SIDE, HiddenClassVector, One, squares

OFFSETS = 7
"""Places of the texture along each axis, 0 to 6 pixels off."""


def textures() -> np.ndarray:
    """The fixed patterns, one per action, (actions, 40, 40)."""
    return squares(JitterCodeVector.actions, 10, JitterCodeVector.contrast)


class JitterCodeVector(HiddenClassVector):
    """n environments of the task; see the module for what it asks and why it is hard.

    An episode is eight frames, a decision on each, and a final observation. Every one of them is fresh static and,
    added to it, a 32x32 window of the class's 40x40 texture at a fresh offset of 0 to 6 pixels along each axis. Frame 7
    has white bars at top and bottom, and there alone the action counts: reward 1 if it is the class, else 0. Chance is
    1/16.

    After a reset, environment i begins with frame i modulo 8, so that rewards come evenly. A shortened episode is worth
    what any other is: the frame that asks shows all that there is to know.

    Args:
        num_envs: n.
        static: the largest value of a pixel of static; the texture adds 0 or 30.
    """

    actions, classes, frames, query, contrast = 16, 16, 8, 7, 30

    def __init__(self, num_envs: int = 1, static: int = 80):
        super().__init__(num_envs, static)
        self._windows = sliding_window_view(textures(), (SIDE, SIDE), axis=(1, 2))

    def _first_frames(self) -> np.ndarray:
        return np.arange(self.num_envs) % self.frames

    def _draw(self, image: np.ndarray) -> None:
        top, left = np.array([rng.integers(OFFSETS, size=2) for rng in self._rngs]).T
        image += self._windows[self._hidden, top, left]


class JitterCode(One):
    """One environment of the task, for `gymnasium.make`.

    Args:
        static: the largest value of a pixel of static.
    """

    def __init__(self, static: int = 80) -> None:
        super().__init__(JitterCodeVector(1, static))
