"""Single environments stepped one after another, as in Gymnasium's own loop, which does more than actors want."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate


class SideBySide(SyncVectorEnv):
    """`SyncVectorEnv` that resets in the step after an end, and puts together what environments say only when asked.

    Gymnasium's fills arrays of every entry of every `info` in every step, which nobody reads while actors explore, and
    copies observations twice.

    Attributes:
        said: of each environment, its newest `info`.
    """

    said: Sequence[dict[str, Any]] = ()

    def reset(self, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        """As Gymnasium's."""
        self.said = ()
        return super().reset(**keywords)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As Gymnasium's, but that the last is empty: see `info`."""
        rewards, said, observations = np.zeros(self.num_envs), [], []
        terminated, truncated = (np.zeros(self.num_envs, np.bool_) for _ in range(2))
        for place, (env, action) in enumerate(zip(self.envs, iterate(self.action_space, actions), strict=True)):
            if self._autoreset_envs[place]:
                observation, info = env.reset()
            else:
                observation, rewards[place], terminated[place], truncated[place], info = env.step(action)
            observations.append(observation)
            said.append(info)
        self._autoreset_envs, self.said = terminated | truncated, said
        fresh: Any = create_empty_array(self.single_observation_space, n=self.num_envs, fn=np.empty)
        return concatenate(self.single_observation_space, observations, fresh), rewards, terminated, truncated, {}

    def info(self) -> dict[str, Any]:
        """What the environments said beside their newest observations, as Gymnasium's vector environments say it."""
        found: dict[str, Any] = {}
        for place, info in enumerate(self.said):
            found = self._add_info(found, info, place)
        return found
