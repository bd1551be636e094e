"""Environments of our own, registered on import: `Environment("actors.envs:StaticRecall-v0")`."""

import gymnasium

from actors.envs.static_recall import StaticRecall, StaticRecallVector

__all__ = ["StaticRecall", "StaticRecallVector"]

gymnasium.register(
    "StaticRecall-v0",
    entry_point="actors.envs.static_recall:StaticRecall",
    vector_entry_point="actors.envs.static_recall:StaticRecallVector",
)
