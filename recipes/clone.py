"""Behaviour cloning from a store, without actors."""

from actors.environments import Environment
from cluster.experiment import Experiment, ExperimentError, Topology
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import Mlp
from learners.objectives.clone import Clone
from learners.update import Normalise, Update
from replay.table import Table

CAPACITY = 100_000_000
"""Rows that are drawn from: all of any store that fits here."""


def clone(
    env: str = "CartPole-v1",
    *,
    store: str = "",
    steps: int = 500_000,
    batch: int = 1024,
    lr: float = 1e-3,
    minibatches: int = 4,
    entropy: float = 0.0,
    anneal: bool = True,
    normalise: bool = False,
    seed: int = 1,
    topology: Topology = Topology(learners=1),
) -> Experiment:
    """Behaviour cloning of a store's rows, vector observations (docs/algorithms/clone.md).

    Args:
        env: environment that the rows are of, to try the policy in.
        store: a run, or a store that `contrail import` made.
        steps: decisions to train on, counted each time that one is drawn.
        batch: rows of a learner step.
        lr: Adam's learning rate.
        minibatches: optimiser steps per batch.
        entropy: weight of the entropy bonus.
        anneal: learning rate falls linearly to 0.
        normalise: divide observations by running statistics.
        seed: root of every random number.
        topology: where it runs.
    """
    if not store:
        raise ExperimentError("clone learns from rows that are there: give --store, a run or an imported store")
    gradient = Gradient(
        {"demonstrations": Clone(entropy=entropy)}, lr=lr, anneal=anneal, epochs=1, minibatches=minibatches
    )
    updates: list[Update] = [gradient]
    if normalise:
        updates.append(Normalise("demonstrations"))
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=Mlp(), normalise=normalise),
        tables={"demonstrations": Table(batch=batch, select="uniform", capacity=CAPACITY)},
        updates=tuple(updates),
        envs=1,
        rows=1,
        steps=steps,
        seed=seed,
        topology=topology,
        store=store,
    )
