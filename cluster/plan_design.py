"""What a plan is made for: how many processes there are, on which nodes, and how much passes between them."""

import math
from dataclasses import dataclass
from typing import Any

from cluster.experiment import Experiment
from learners.gradient import Gradient
from learners.trust_region import TrustRegion
from learners.update import Update


@dataclass(frozen=True)
class Design:
    """What is to be predicted.

    Attributes:
        actors: how many.
        envs: environments of each.
        learners: how many.
        shards: how many.
        lag: versions that an actor's weights may be behind.
        batch: rows that a learner step draws, over all learners and tables.
        reductions: sums over learners in a step.
        row_bytes: of a row.
        block_bytes: of the rows of an actor's block.
        weight_bytes: of what is published.
        gradient_bytes: of what learners sum.
        cores: of each node.
        actors_per_node: nodes of their own for actors; 0: they are on the driver's.
        learners_per_node: the same of learners.
        bandwidth: bytes a second in each direction of a node's network.
        latency: seconds that a message takes between two nodes, beside its bytes.
        learner_speed: how much faster learners are than those that were measured.
    """

    actors: int
    envs: int
    learners: int = 1
    shards: int = 1
    lag: int = 0
    batch: int = 256
    reductions: int = 1
    row_bytes: int = 0
    block_bytes: int = 0
    weight_bytes: int = 0
    gradient_bytes: int = 0
    cores: int = 2
    actors_per_node: int = 0
    learners_per_node: int = 0
    bandwidth: float = 1.25e9
    latency: float = 1e-4
    learner_speed: float = 1.0

    @property
    def actor_nodes(self) -> int:
        """Nodes that have nothing but actors."""
        return math.ceil(self.actors / self.actors_per_node) if self.actors_per_node else 0

    @property
    def learner_nodes(self) -> int:
        """Nodes that have nothing but learners."""
        return math.ceil(self.learners / self.learners_per_node) if self.learners_per_node else 0

    @property
    def nodes(self) -> int:
        """All of them, the driver's included."""
        return 1 + self.actor_nodes + self.learner_nodes


@dataclass(frozen=True)
class Forecast:
    """What a simulated run did, once it was running evenly.

    Attributes:
        speed: env steps trained on a second.
        step: seconds of a learner step.
        lag: mean of the versions that trained rows were behind.
        lag_p99: 99th percentile of these.
        busy: by what it is, the share of time in which it was used: the mean over actors and over learners, the most
            used shard, "cores" and "network" of the driver's node.
        traffic: bytes a second, by node and direction, as "driver in"; of actors' and learners' nodes the mean.
    """

    speed: float
    step: float
    lag: float
    lag_p99: float
    busy: dict[str, float]
    traffic: dict[str, float]


def layout(experiment: Experiment) -> dict[str, Any]:
    """What an experiment says of its processes and their work, as attributes of `Seen`."""
    topology = experiment.topology
    return {
        "actors": topology.actors,
        "envs": experiment.envs // topology.actors,
        "learners": topology.learners,
        "rows": drawn_rows(experiment) / topology.learners,
        "reductions": reductions(experiment),
    }


def drawn_rows(experiment: Experiment) -> int:
    """Rows that a learner step draws, over all learners."""
    return sum(table.batch_windows * (table.lead + table.window) for table in experiment.tables.values())


def reductions(experiment: Experiment) -> int:
    """Sums over learners in a step: one for each optimiser step, and each product of a conjugate gradient."""
    return sum(_reductions(update) for update in experiment.updates)


def _reductions(update: Update) -> int:
    if isinstance(update, Gradient):
        return update.epochs * update.minibatches
    return update.iterations + 2 if isinstance(update, TrustRegion) else 1
