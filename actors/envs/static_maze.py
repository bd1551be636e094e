"""StaticMaze: a maze that never changes, seen from above under static; the way out is to be learned, not seen.

Walls and goal are the same in every episode, so only the agent's cell tells what to do, one of four actions in each.
An episode begins in any cell. A random policy hardly moves, and is paid only where it began near the goal: reward
teaches the maze from the goal backwards.
"""

import numpy as np

from actors.envs.hidden_class import SIDE, One
from actors.envs.walk import STEPS, WalkVector, agents, goals, ways

ACROSS = 8
"""Cells along each side."""
CELL = SIDE // ACROSS
"""Pixels along each side of a cell."""
LAST = ACROSS * ACROSS - 1
"""The cell of the goal, at the bottom right."""


def maze() -> np.ndarray:
    """The cell where each action leads, (cells, 4): a tree over an 8x8 grid, grown from the goal edge by edge."""
    rng, open_ways = np.random.default_rng(2026), ways(ACROSS)
    leads = np.tile(np.arange(LAST + 1)[:, None], len(STEPS))
    dug = {LAST}
    while len(dug) <= LAST:
        here, action = rng.choice(sorted(dug)), rng.integers(len(STEPS))
        there = open_ways[here, action]
        if there not in dug:
            # Actions come in pairs of opposites: 0 and 1, 2 and 3.
            leads[here, action], leads[there, action ^ 1] = there, here
            dug.add(there)
    return leads


def walls() -> np.ndarray:
    """Pixels (SIDE, SIDE) between cells that do not lead to each other: the last row or column of the cell before."""
    closed = (maze() == np.arange(LAST + 1)[:, None]).reshape(ACROSS, ACROSS, -1)
    drawn = np.zeros((ACROSS, CELL, ACROSS, CELL), np.uint8)
    drawn[:, -1] |= closed[:, None, :, 1].swapaxes(1, 2)
    drawn[:, :, :, -1] |= closed[:, None, :, 3]
    return drawn.reshape(SIDE, SIDE)


class StaticMazeVector(WalkVector):
    """n environments of the task; see the module for what it asks.

    Every frame is fresh static and, added to it, the walls, the goal (a cross) at the bottom right and the agent (a
    ring) in its cell of an 8x8 grid of 4x4 pixels. An episode begins in any other cell with equal chance. Actions lead
    up, down, left and right, and against a wall nowhere. An episode is cut off after 48 decisions; who knows the maze
    needs 7.6 on average and 14 at most. A random policy gets .08.

    `info["class"]` is the agent's cell, row by row.

    Args:
        num_envs: n.
        static: the largest value of a pixel of static; what is drawn adds 0 or 60.
    """

    actions, classes, frames, contrast = len(STEPS), LAST, 48, 60

    def __init__(self, num_envs: int = 1, static: int = 160):
        super().__init__(num_envs, static)
        self._maze = maze()
        fixed = np.maximum(walls() * np.uint8(self.contrast), goals(ACROSS, self.contrast)[LAST])
        self._pictures = np.maximum(fixed, agents(ACROSS, self.contrast))

    def _walk(self, actions: np.ndarray) -> np.ndarray:
        self._hidden = self._maze[self._hidden, actions]
        return self._hidden == LAST

    def _draw(self, image: np.ndarray) -> None:
        image += self._pictures[self._hidden]


class StaticMaze(One):
    """One environment of the task, for `gymnasium.make`.

    Args:
        static: the largest value of a pixel of static.
    """

    def __init__(self, static: int = 160) -> None:
        super().__init__(StaticMazeVector(1, static))
