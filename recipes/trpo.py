"""TRPO on vector observations."""

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import Mlp
from learners.objectives.trpo import Critic, Surrogate
from learners.trust_region import TrustRegion
from learners.update import Normalise, Update
from replay.table import Table


def trpo(
    env: str = "CartPole-v1",
    *,
    steps: int = 100_000,
    envs: int = 8,
    rows: int = 128,
    max_kl: float = 0.01,
    damping: float = 0.1,
    fisher_every: int = 1,
    lr: float = 1e-3,
    epochs: int = 10,
    minibatches: int = 8,
    gamma: float = 0.99,
    lam: float = 0.98,
    normalise: bool = False,
    seed: int = 1,
    topology: Topology = Topology(actors=1, learners=1),
) -> Experiment:
    """TRPO on vector observations, discrete or continuous actions (docs/algorithms/trpo.md).

    Args:
        env: a Gymnasium id, or "module:Name-v0".
        steps: agent steps to train on.
        envs: environments over all actors.
        rows: of each environment between two learner steps: its decisions, and final observations among them.
        max_kl: bound on the mean KL from the policy that acted, in nats.
        damping: added to the Fisher matrix's diagonal.
        fisher_every: products with the Fisher matrix see every so-many-th decision.
        lr: Adam's learning rate, of the critic.
        epochs: the critic's passes over each batch.
        minibatches: the critic's optimiser steps per pass.
        gamma: discount.
        lam: decay of the advantage estimator.
        normalise: divide observations and rewards by running statistics (for continuous control).
        seed: root of every random number.
        topology: where it runs.
    """
    advantages = Advantages(gamma, lam, scale_reward=normalise)
    # The critic has an encoder of its own and comes after: the policy's step sees the values that the actors saw.
    updates: list[Update] = [
        TrustRegion({"fresh": Surrogate(advantages)}, max_kl=max_kl, damping=damping, fisher_every=fisher_every),
        Gradient({"fresh": Critic(advantages)}, lr=lr, epochs=epochs, minibatches=minibatches),
    ]
    if normalise:
        updates.append(Normalise("fresh"))
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(Mlp(), value_encoder=Mlp(), normalise=normalise, record_distribution=True),
        tables={"fresh": Table(batch=envs, window=rows + 1, stride=rows, max_lag=topology.max_version_lag)},
        updates=tuple(updates),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
    )
