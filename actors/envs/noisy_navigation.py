"""NoisyNavigation: on an open grid, find a goal that lies elsewhere in every episode; steps slip, all is under static.

Agent and goal are two faint signs, and where one of them is says nothing about where the other is. What must be done
follows from the two together, so whoever can tell the agent's place from its moves knows only half of what pays.
"""

from typing import Any

import numpy as np

from actors.envs.hidden_class import One
from actors.envs.walk import STEPS, WalkVector, agents, goals, ways

ACROSS = 5
"""Cells along each side."""
SLIP = 0.1
"""Chance that a step goes in a random direction instead."""


class NoisyNavigationVector(WalkVector):
    """n environments of the task; see the module for what it asks.

    Every frame is fresh static and, added to it, the agent (a ring) and the goal (a cross) in their cells of a 5x5 grid
    of 6x6 pixels. Both cells are drawn at random for each episode, never the same for both. Actions lead up, down, left
    and right, and at the border nowhere; one step in ten goes in a random direction. An episode is cut off after 16
    decisions; who sees both signs needs 3.3 on average and 8 at most if nothing slips. A random policy gets .29.

    `info["class"]` is the agent's cell and `info["goal"]` the goal's, row by row.

    Args:
        num_envs: n.
        static: the largest value of a pixel of static; a sign adds 0 or 60.
    """

    actions, classes, frames, contrast = len(STEPS), ACROSS * ACROSS, 16, 60

    def __init__(self, num_envs: int = 1, static: int = 80):
        super().__init__(num_envs, static)
        self._goal = np.zeros(num_envs, dtype=np.int64)
        self._ways = ways(ACROSS)
        self._agents, self._goals = agents(ACROSS, self.contrast), goals(ACROSS, self.contrast)

    def _walk(self, actions: np.ndarray) -> np.ndarray:
        slips = np.array([rng.random() < SLIP for rng in self._rngs])
        elsewhere = np.array([rng.integers(self.actions) for rng in self._rngs])
        self._hidden = self._ways[self._hidden, np.where(slips, elsewhere, actions)]
        return self._hidden == self._goal

    def _draw_hidden(self, slots: np.ndarray) -> None:
        for slot in slots:
            self._hidden[slot], self._goal[slot] = self._rngs[slot].choice(self.classes, 2, replace=False)

    def _draw(self, image: np.ndarray) -> None:
        image += np.maximum(self._agents[self._hidden], self._goals[self._goal])

    def _info(self) -> dict[str, Any]:
        return super()._info() | {"goal": self._goal.copy()}


class NoisyNavigation(One):
    """One environment of the task, for `gymnasium.make`.

    Args:
        static: the largest value of a pixel of static.
    """

    def __init__(self, static: int = 80) -> None:
        super().__init__(NoisyNavigationVector(1, static))
