"""Environments of our own, registered on import: `Environment("actors.envs:StaticRecall-v0")`."""

import gymnasium

from actors.envs.jitter_code import JitterCode, JitterCodeVector
from actors.envs.no_velocity import CartPoleNoVelocity
from actors.envs.noisy_navigation import NoisyNavigation, NoisyNavigationVector
from actors.envs.static_lock import StaticLock, StaticLockVector
from actors.envs.static_maze import StaticMaze, StaticMazeVector
from actors.envs.static_recall import StaticRecall, StaticRecallVector

__all__ = [
    "CartPoleNoVelocity",
    "JitterCode",
    "JitterCodeVector",
    "NoisyNavigation",
    "NoisyNavigationVector",
    "StaticLock",
    "StaticLockVector",
    "StaticMaze",
    "StaticMazeVector",
    "StaticRecall",
    "StaticRecallVector",
]

for _name, _module in (
    ("StaticRecall", "static_recall"),
    ("JitterCode", "jitter_code"),
    ("StaticLock", "static_lock"),
    ("NoisyNavigation", "noisy_navigation"),
    ("StaticMaze", "static_maze"),
):
    gymnasium.register(
        f"{_name}-v0",
        entry_point=f"actors.envs.{_module}:{_name}",
        vector_entry_point=f"actors.envs.{_module}:{_name}Vector",
    )

gymnasium.register(
    "CartPoleNoVelocity-v0", entry_point="actors.envs.no_velocity:CartPoleNoVelocity", max_episode_steps=500
)
