"""The tasks on which methods are compared with other systems', and the settings that all systems share on them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

Method = Literal["ppo", "ppo-kl", "trpo", "a2c"]
Name = Literal["cartpole", "acrobot", "pendulum", "cheetah", "empty", "memory", "breakout"]
METHODS: tuple[Method, ...] = ("ppo", "ppo-kl", "trpo", "a2c")
TITLES: Mapping[str, str] = {"ppo": "PPO", "ppo-kl": "PPO, KL penalty", "trpo": "TRPO", "a2c": "A2C"}


@dataclass(frozen=True)
class Setting:
    """What is told to every system; a method leaves out what it has no use for.

    Attributes:
        steps: agent steps to train on.
        envs: environments.
        rows: of each environment between two learner steps.
        lr: Adam's learning rate; of TRPO the critic's.
        epochs: passes over each batch; of TRPO the critic's.
        minibatches: optimiser steps per pass.
        gamma: discount.
        lam: decay of the advantage estimator.
        clip: how far PPO's ratio may leave 1.
        kl: in nats of the whole action: the target of the penalty, or the bound of TRPO.
        entropy: weight of the entropy bonus.
        anneal: the learning rate falls linearly to 0.
        normalise: divide observations and rewards by running statistics.
    """

    steps: int
    envs: int = 8
    rows: int = 128
    lr: float = 1e-3
    epochs: int = 10
    minibatches: int = 8
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    kl: float = 0.02
    entropy: float = 0.0
    anneal: bool = False
    normalise: bool = False


@dataclass(frozen=True)
class Task:
    """An environment, and the settings of every method on it.

    Attributes:
        title: over its table.
        id: of the environment.
        settings: by method.
        network: two tanh layers of 64 for policy and critic each; one of 64 and a recurrent core of 64 that both share;
            or the Nature network, shared.
        episodes: of the evaluation after training.
        sampled: whether actions are sampled in it; else the likeliest are taken.
        kwargs: of the environment.
    """

    title: str
    id: str
    settings: Mapping[Method, Setting]
    network: Literal["mlp", "memory", "nature"] = "mlp"
    episodes: int = 100
    sampled: bool = False
    kwargs: Mapping[str, float] = field(default_factory=dict)


def _family(ppo: Setting, trpo: Setting, a2c: Setting) -> dict[Method, Setting]:
    """The KL penalty has PPO's setting."""
    return {"ppo": ppo, "ppo-kl": ppo, "trpo": trpo, "a2c": a2c}


@dataclass(frozen=True)
class _Of:
    """Settings of one task that differ by method only."""

    steps: int
    shared: Mapping[str, float | bool] = field(default_factory=dict)

    def __call__(self, **own: float | bool) -> Setting:
        return Setting(**({"steps": self.steps} | dict(self.shared) | own))  # type: ignore[arg-type]


CARTPOLE = _Of(100_000)
ACROBOT = _Of(150_000)
PENDULUM = _Of(150_000, {"gamma": 0.9, "envs": 4})
CHEETAH = _Of(100_000, {"normalise": True})
EMPTY = _Of(60_000, {"entropy": 0.01})
MEMORY = _Of(100_000, {"normalise": True, "envs": 16})
BREAKOUT = _Of(40_000, {"entropy": 0.01})

TASKS: Mapping[Name, Task] = {
    "cartpole": Task(
        "CartPole-v1",
        "CartPole-v1",
        _family(
            CARTPOLE(rows=32, epochs=20, minibatches=1, gamma=0.98, lam=0.8, anneal=True),
            CARTPOLE(lam=0.98, kl=0.01),
            CARTPOLE(envs=16, rows=16, lr=2e-3, anneal=True),
        ),
    ),
    "acrobot": Task(
        "Acrobot-v1",
        "Acrobot-v1",
        _family(ACROBOT(minibatches=4), ACROBOT(kl=0.01), ACROBOT(envs=16, rows=16, anneal=True)),
    ),
    "pendulum": Task(
        "Pendulum-v1",
        "Pendulum-v1",
        _family(
            PENDULUM(rows=1024, minibatches=64),
            PENDULUM(rows=512, minibatches=16, kl=0.01),
            PENDULUM(rows=16, normalise=True, anneal=True),
        ),
    ),
    "cheetah": Task(
        "HalfCheetah-v5",
        "HalfCheetah-v5",
        _family(
            CHEETAH(rows=256, lr=3e-4, minibatches=32),
            CHEETAH(rows=256, minibatches=16, kl=0.24),
            CHEETAH(rows=16, lr=7e-4, anneal=True),
        ),
        episodes=20,
    ),
    "empty": Task(
        "MiniGrid-Empty-8x8-v0, the 7x7 view as numbers",
        "benchmarks.minigrid_view:MiniGridEmptyView-v0",
        _family(EMPTY(minibatches=4), EMPTY(kl=0.01), EMPTY(envs=16, rows=16)),
    ),
    "memory": Task(
        "CartPole without velocities, with a memory",
        "actors.envs:CartPoleNoVelocity-v0",
        _family(
            MEMORY(rows=64, epochs=8, minibatches=4, anneal=True),
            MEMORY(rows=64, minibatches=4, kl=0.01),
            MEMORY(rows=32, anneal=True),
        ),
        network="memory",
    ),
    "breakout": Task(
        "ALE/Breakout-v5, no sticky actions",
        "ALE/Breakout-v5",
        _family(
            BREAKOUT(epochs=4, minibatches=4, lr=2.5e-4, clip=0.1),
            BREAKOUT(epochs=4, minibatches=4, lr=2.5e-4, kl=0.01),
            BREAKOUT(envs=16, rows=16, lr=7e-4),
        ),
        network="nature",
        episodes=30,
        sampled=True,
        kwargs={"repeat_action_probability": 0.0},
    ),
}


def told(name: Name, method: Method, seed: int = 1) -> dict[str, object]:
    """What Stable-Baselines3's script is told of a run."""
    task = TASKS[name]
    about = {"network": task.network, "episodes": task.episodes, "sampled": task.sampled, "kwargs": dict(task.kwargs)}
    return asdict(task.settings[method]) | {"method": method, "seed": seed, "environment": task.id} | about
