"""StaticLock: sixteen rooms in a row, told apart only by faint textures under static; every room has its own way on.

In each room one of eight actions leads on, one leads back and six do nothing; which ones, differs from room to room and
never changes. The only reward lies behind the last room. A random policy hardly moves, and is paid only where it began
near the end: reward teaches one room after another, from the last one. That frames of one room and of its neighbours
follow each other can be seen everywhere from the start.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from actors.envs.hidden_class import SIDE, One
from actors.envs.jitter_code import OFFSETS, textures
from actors.envs.walk import WalkVector

ROOMS = 16


def moves() -> np.ndarray:
    """Where each action leads from each room, (ROOMS, actions): 1 on, -1 back, 0 nowhere."""
    return np.random.default_rng(2026).permuted(np.tile([1, -1, 0, 0, 0, 0, 0, 0], (ROOMS, 1)), axis=1)


class StaticLockVector(WalkVector):
    """n environments of the task; see the module for what it asks and why it is hard.

    Every frame is fresh static and, added to it, a 32x32 window of the room's 40x40 texture at a fresh offset of 0 to 6
    pixels along each axis. An episode begins in any room with equal chance; the step that leads on from the last one is
    worth 1 and ends it (terminated). It is cut off (truncated) after 32 decisions. Who knows the rooms needs 1 to 16 of
    them; a random policy gets through in about one episode of nine.

    Args:
        num_envs: n.
        static: the largest value of a pixel of static; the texture adds 0 or 30.
    """

    actions, classes, frames, contrast = 8, ROOMS, 32, 30

    def __init__(self, num_envs: int = 1, static: int = 80):
        super().__init__(num_envs, static)
        self._windows = sliding_window_view(textures(), (SIDE, SIDE), axis=(1, 2))
        self._moves = moves()

    def _walk(self, actions: np.ndarray) -> np.ndarray:
        room = np.maximum(self._hidden + self._moves[self._hidden, actions], 0)
        self._hidden = np.minimum(room, ROOMS - 1)
        return room == ROOMS

    def _draw(self, image: np.ndarray) -> None:
        top, left = np.array([rng.integers(OFFSETS, size=2) for rng in self._rngs]).T
        image += self._windows[self._hidden, top, left]


class StaticLock(One):
    """One environment of the task, for `gymnasium.make`.

    Args:
        static: the largest value of a pixel of static.
    """

    def __init__(self, static: int = 80) -> None:
        super().__init__(StaticLockVector(1, static))
