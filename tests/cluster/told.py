"""An environment that says a few things about itself, and shows its step."""

from typing import Any

import gymnasium
import numpy as np

from tests.actors.counting import Counting


class Told(Counting):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - Gymnasium's declaration

    def __init__(self, render_mode: str | None = None):
        super().__init__()
        self.render_mode = render_mode

    def reset(self, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        observation, _ = super().reset(**keywords)
        return observation, self._told()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, self._told()

    def render(self) -> np.ndarray:
        return np.full((4, 4, 3), self._step, np.uint8)

    def _told(self) -> dict[str, Any]:
        pair = np.array([self._seed, self._episode])
        said = {"twice": 2 * self._step, "pair": pair, "name": "told", "many": np.zeros(99), "same": 4}
        return said | ({"odd": self._step} if self._step % 2 else {})


gymnasium.register("Told-v0", entry_point=Told)
