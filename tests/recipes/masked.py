"""An environment that forbids actions, and objects when one is taken."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Restless(gymnasium.Env):
    """Never allows the last action again; the final observation forbids everything. An episode has five decisions."""

    def __init__(self, stuck: int = -1) -> None:
        """With `stuck`, that step's observation allows nothing."""
        self.observation_space = spaces.Dict(
            {"last": spaces.Box(-1, 3, (1,), np.float32), "action_mask": spaces.MultiBinary(3)}
        )
        self.action_space, self._stuck = spaces.Discrete(3, start=1), stuck

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step, self._last = 0, 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if action == self._last and self._step != self._stuck:
            raise ValueError(f"action {action} is forbidden")
        self._step, self._last = self._step + 1, int(action)
        return self._observation(), float(action == 3), self._step == 5, False, {}

    def _observation(self) -> Any:
        allowed = np.ones(3, np.int8)
        allowed[self._last - 1 : self._last] = 0
        if self._step in (5, self._stuck):
            allowed[:] = 0
        return {"last": np.array([self._last], np.float32), "action_mask": allowed}


gymnasium.register("Restless-v0", entry_point=Restless)
