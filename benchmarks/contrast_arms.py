"""What the contrastive control table compares: the tasks, and the arms that are trained on each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from learners.augment import RandomShift
from learners.nets.cores import Gru
from learners.objective import Objective
from learners.objectives.cpc import Cpc
from learners.objectives.curl import Curl

TaskName = Literal["jitter", "recall", "lock", "navigation", "maze"]
SHIFT = 3


@dataclass(frozen=True)
class Task:
    """An environment, and what every arm has on it.

    Attributes:
        id: of the environment.
        static: its largest value of a pixel of static, if not told otherwise.
        steps: env steps of a run.
        core: of the model.
        chance: return of a random policy.
    """

    id: str
    static: int
    steps: int
    core: Gru | None
    chance: float


TASKS: dict[TaskName, Task] = {
    "jitter": Task("actors.envs:JitterCode-v0", 80, 80_000, None, 1 / 16),
    "recall": Task("actors.envs:StaticRecall-v0", 160, 100_000, Gru(64), 1 / 8),
    "lock": Task("actors.envs:StaticLock-v0", 80, 120_000, None, 0.11),
    "navigation": Task("actors.envs:NoisyNavigation-v0", 80, 100_000, None, 0.29),
    "maze": Task("actors.envs:StaticMaze-v0", 160, 100_000, None, 0.08),
}


@dataclass(frozen=True)
class Arm:
    """What is trained.

    Attributes:
        title: its row in the table.
        objectives: added to PPO, with their weights.
        crop: whether PPO sees shifted frames instead of those that it acted on.
        lr: learning rate.
        epochs: passes over each batch.
        trust: TRPO in place of PPO: one trust-region step after the gradient steps of critic and contrast, and a critic
            with an encoder of its own.
        history: rows of the past that CURL is given, too, half as many in each step as are fresh; 0: none.
    """

    title: str
    objectives: Mapping[str, tuple[float, Objective]] = field(default_factory=dict)
    crop: bool = False
    lr: float = 1e-3
    epochs: int = 4
    trust: bool = False
    history: int = 0


def curl(weight: float = 0.3, *, shuffled: bool = False, group: str = "contrast") -> dict[str, tuple[float, Objective]]:
    """CURL beside PPO."""
    return {"curl": (weight, Curl(augment=RandomShift(SHIFT), shuffled=shuffled, group=group))}


def cpc(weight: float = 1.0, *, shuffled: bool = False) -> dict[str, tuple[float, Objective]]:
    """CPC beside PPO."""
    return {"cpc": (weight, Cpc(shuffled=shuffled))}


TABLE = {
    "ppo": Arm("PPO"),
    "ppo-8-epochs": Arm("PPO, 8 epochs", epochs=8),
    "ppo-lr-2e-3": Arm("PPO, learning rate 2e-3", lr=2e-3),
    "crop": Arm("PPO on shifted frames (crop only)", crop=True),
    "crop+curl": Arm("PPO on shifted frames, CURL", curl(), crop=True),
    "curl": Arm("PPO on raw frames, CURL", curl()),
    "curl-weight-0.1": Arm("PPO on raw frames, CURL of weight .1", curl(0.1)),
    "curl-history": Arm("PPO on raw frames, CURL of weight .1 on fresh rows and history", curl(0.1), history=50_000),
    "cpc": Arm("PPO, CPC", cpc()),
    "curl-shuffled": Arm("PPO, CURL, pairs shuffled", curl(shuffled=True)),
    "cpc-shuffled": Arm("PPO, CPC, pairs shuffled", cpc(shuffled=True)),
}
"""The control table's rows."""
TRUST = {
    "trpo": Arm("TRPO", trust=True),
    "trpo-curl": Arm("TRPO, CURL of weight .1", curl(0.1), trust=True),
    "trpo-cpc": Arm("TRPO, CPC", cpc(), trust=True),
    "trpo-curl-shuffled": Arm("TRPO, CURL of weight .1, pairs shuffled", curl(0.1, shuffled=True), trust=True),
    "trpo-cpc-shuffled": Arm("TRPO, CPC, pairs shuffled", cpc(shuffled=True), trust=True),
}
"""The same with TRPO."""
TUNING = {
    "curl-weight-1": Arm("PPO on raw frames, CURL of weight 1", curl(1.0)),
    "cpc-weight-0.3": Arm("PPO, CPC of weight .3", cpc(0.3)),
    "cpc-weight-3": Arm("PPO, CPC of weight 3", cpc(3.0)),
}
"""Beside those in the table: PPO, CURL and CPC were given three settings each, on seed 1."""
ARMS = TABLE | TRUST | TUNING
