"""PPO with a memory, on vector observations."""

from typing import Literal

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp
from learners.nets.transformer import Transformer
from learners.objectives.ppo import PPO
from learners.update import Normalise, Update
from replay.table import Table


def recurrent_ppo(
    env: str = "actors.envs:CartPoleNoVelocity-v0",
    *,
    steps: int = 200_000,
    envs: int = 16,
    rows: int = 64,
    core: Literal["gru", "transformer"] = "gru",
    hidden: int = 64,
    memory: int = 16,
    burn_in: int = 0,
    lr: float = 1e-3,
    epochs: int = 8,
    minibatches: int = 4,
    gamma: float = 0.99,
    lam: float = 0.95,
    clip: float = 0.2,
    entropy: float = 0.0,
    anneal: bool = True,
    normalise: bool = True,
    seed: int = 1,
    topology: Topology = Topology(actors=1, learners=1),
) -> Experiment:
    """PPO with a recurrent core, on vector observations that do not tell everything (docs/recurrence.md).

    Args:
        env: a Gymnasium id, or "module:Name-v0".
        steps: agent steps to train on.
        envs: environments over all actors.
        rows: of each environment between two learner steps: its decisions, and final observations among them.
        core: what remembers: a gated recurrent unit, or a causal transformer over the last rows of the episode.
        hidden: width of the core.
        memory: (transformer) rows that each layer looks back.
        burn_in: rows before each window that warm up the core with the present weights; 0: the recorded state.
        lr: Adam's learning rate.
        epochs: passes over each batch.
        minibatches: optimiser steps per pass, each on whole windows.
        gamma: discount.
        lam: decay of the advantage estimator.
        clip: how far the policy's ratio may leave 1.
        entropy: weight of the entropy bonus.
        anneal: learning rate falls linearly to 0.
        normalise: divide observations and rewards by running statistics.
        seed: root of every random number.
        topology: where it runs.
    """
    objective = PPO(Advantages(gamma, lam, scale_reward=normalise), clip, entropy=entropy)
    updates: list[Update] = [
        Gradient({"fresh": objective}, lr=lr, anneal=anneal, epochs=epochs, minibatches=minibatches)
    ]
    if normalise:
        updates.append(Normalise("fresh"))
    remembers = Gru(hidden) if core == "gru" else Transformer(hidden, memory=memory)
    fresh = Table(batch=envs, window=rows + 1, stride=rows, lead=burn_in, max_lag=topology.max_version_lag)
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=Mlp((64,)), core=remembers, normalise=normalise),
        tables={"fresh": fresh},
        updates=tuple(updates),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
    )
