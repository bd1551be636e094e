"""A learner with all that it needs around it: random rows of images or vectors, the same for the same step."""

from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from learners.last_versions import LastVersions
from learners.learner import Learner
from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp, SmallConv
from learners.objective import Objective
from learners.precision import Precision
from learners.update import Update
from replay.schema import Column
from replay.table import Table

ACTIONS = gym.spaces.Discrete(3)
VECTOR, FRAMES = {"observation": Column("float32", (3,))}, {"observation": Column("uint8", (24, 24))}
TABLE = Table(batch=4, window=9, stride=8, lead=1, max_lag=1)
"""Not 0: the rows are nobody's, so the learner's policy is not the one that acted."""


class RandomRows:
    """Gives every learner step another batch of windows, and keeps what is published.

    Args:
        images: observations are frames, else vectors.
        changes: columns that are put in the place of random ones.
    """

    def __init__(self, *, images: bool, changes: Mapping[str, np.ndarray] | None = None) -> None:
        self.images, self.changes = images, dict(changes or {})
        self.published: list[int] = []
        self.moments: dict[str, float] = {}

    def read(self, step: int) -> dict[str, dict[str, np.ndarray]]:
        rng, shape = np.random.default_rng(step), (TABLE.batch, TABLE.lead + TABLE.window)
        mask = (rng.random(shape) < 0.9).astype(np.uint8)
        mask[:, [0, -1]] = 0
        columns = {
            "observation": rng.integers(0, 256, (*shape, 24, 24), dtype=np.uint8)
            if self.images
            else rng.random((*shape, 3), np.float32),
            "action": rng.integers(0, 3, shape),
            "log_prob": np.full(shape, -np.log(3), np.float32),
            "value": rng.random(shape, np.float32),
            "reward": rng.random(shape, np.float32),
            "discounted_return": rng.random(shape, np.float32),
            "terminated": (rng.random(shape) < 0.05).astype(np.uint8),
            "truncated": np.zeros(shape, np.uint8),
            "mask": mask,
            "episode": np.zeros(shape, np.int64),
            "step": np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy(),
            "policy_version": np.full(shape, step, np.int64),
        }
        return {"fresh": columns | self.changes}

    def prioritise(self, table: str, items: np.ndarray, priorities: np.ndarray) -> None:
        raise AssertionError("no table has priorities")

    def close(self) -> None:
        pass

    def publish(self, version: int, weights: dict[str, np.ndarray]) -> None:
        self.published.append(version)


def model_of(*objectives: Objective, images: bool, precision: Precision = "fp32", **options) -> Model:
    """A small model, always the same."""
    torch.manual_seed(0)
    spec = ActorCritic(SmallConv(16) if images else Mlp((8,)), stack=2 if images else 1, precision=precision, **options)
    return spec.build(FRAMES if images else VECTOR, ACTIONS, objectives)


def learner_of(
    model: Model,
    *updates: Update,
    rows: RandomRows,
    table: Table = TABLE,
    failures: Path | None = None,
    keep: LastVersions | None = None,
) -> Learner:
    """On the processor, alone."""
    options = {"total_steps": 1000, "failures": failures, "keep": keep}
    return Learner(model, updates, tables={"fresh": table}, read=rows, publish=rows, **options)
