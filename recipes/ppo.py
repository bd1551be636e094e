"""PPO on vector observations."""

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import Mlp
from learners.objectives.ppo import PPO
from learners.update import Normalise, Update
from replay.table import Table


def ppo(
    env: str = "CartPole-v1",
    *,
    steps: int = 100_000,
    envs: int = 8,
    rows: int = 32,
    lr: float = 1e-3,
    epochs: int = 20,
    minibatches: int = 1,
    gamma: float = 0.98,
    lam: float = 0.8,
    clip: float = 0.2,
    kl_target: float | None = None,
    entropy: float = 0.0,
    anneal: bool = True,
    normalise: bool = False,
    seed: int = 1,
    topology: Topology = Topology(actors=1, learners=1),
) -> Experiment:
    """PPO on vector observations, discrete or continuous actions (docs/algorithms/ppo.md).

    Args:
        env: a Gymnasium id, or "module:Name-v0".
        steps: agent steps to train on.
        envs: environments over all actors.
        rows: of each environment between two learner steps: its decisions, and final observations among them.
        lr: Adam's learning rate.
        epochs: passes over each batch.
        minibatches: optimiser steps per pass.
        gamma: discount.
        lam: decay of the advantage estimator.
        clip: how far the policy's ratio may leave 1.
        kl_target: KL, in nats, to which an adaptive penalty steers each learner step in place of the clip.
        entropy: weight of the entropy bonus.
        anneal: learning rate falls linearly to 0.
        normalise: divide observations and rewards by running statistics (for continuous control).
        seed: root of every random number.
        topology: where it runs.
    """
    objective = PPO(Advantages(gamma, lam, scale_reward=normalise), clip, entropy=entropy, kl_target=kl_target)
    updates: list[Update] = [
        Gradient({"fresh": objective}, lr=lr, anneal=anneal, epochs=epochs, minibatches=minibatches)
    ]
    if normalise:
        updates.append(Normalise("fresh"))
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(Mlp(), value_encoder=Mlp(), normalise=normalise, record_distribution=kl_target is not None),
        tables={"fresh": Table(batch=envs, window=rows + 1, stride=rows, max_lag=topology.max_version_lag)},
        updates=tuple(updates),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
    )
