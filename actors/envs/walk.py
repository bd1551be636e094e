"""Environments in which one walks: the hidden class is the place, every action counts, arriving is worth 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.envs.hidden_class import SIDE, HiddenClassVector

STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
"""What each action on a grid adds to row and column: up, down, left, right."""


class WalkVector(HiddenClassVector):
    """n environments in which an episode ends where one arrives. A subclass says where an action leads.

    The step that arrives is worth 1 and ends the episode (terminated); every other step is worth 0. An episode is cut
    off (truncated) after `frames` decisions. `info["class"]` is the place.

    Args:
        num_envs: n.
        static: the largest value of a pixel of static.
    """

    query = -1

    def __init__(self, num_envs: int, static: int):
        super().__init__(num_envs, static)
        self._over = np.zeros(num_envs, dtype=np.bool_)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One decision; where the observation was a final one, the action is ignored and the next episode begins."""
        arrived = self._walk(actions) & ~self._over
        self._frame = np.where(self._over, 0, self._frame + 1)
        self._draw_hidden(np.flatnonzero(self._over))
        late = (self._frame == self.frames) & ~arrived
        self._over = arrived | late
        return self._observation(), arrived.astype(np.float32), arrived, late, self._info()

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """New episodes everywhere; arguments as for any other of these tasks."""
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        return super().reset(seed=seed, options=options)

    def _walk(self, actions: np.ndarray) -> np.ndarray:
        """Go where the actions (n,) lead; returns who has arrived, (n,)."""
        raise NotImplementedError


def ways(across: int) -> np.ndarray:
    """The cell where each action leads on a square grid without walls but its border, (across * across, 4)."""
    cells = np.stack(np.divmod(np.arange(across * across), across), axis=1)
    row, column = np.moveaxis(np.clip(cells[:, None] + STEPS, 0, across - 1), -1, 0)
    return row * across + column


def agents(across: int, contrast: int) -> np.ndarray:
    """The image of the agent, a ring, in each cell of such a grid, (across * across, SIDE, SIDE): 0 or `contrast`."""
    ring = np.ones((SIDE // across, SIDE // across), np.uint8)
    ring[1:-1, 1:-1] = 0
    return _everywhere(ring, across, contrast)


def goals(across: int, contrast: int) -> np.ndarray:
    """The image of the goal, a cross, as `agents` has the agent."""
    diagonal = np.eye(SIDE // across, dtype=np.uint8)
    return _everywhere(diagonal | diagonal[::-1], across, contrast)


def _everywhere(sign: np.ndarray, across: int, contrast: int) -> np.ndarray:
    places = np.eye(across * across, dtype=np.uint8).reshape(-1, across, across)
    margin = SIDE - across * len(sign)
    around = (margin // 2, margin - margin // 2)
    return np.pad(np.kron(places, sign[None]) * np.uint8(contrast), ((0, 0), around, around))
