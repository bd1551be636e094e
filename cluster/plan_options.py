"""The flags of `contrail plan`: what is planned, on which machines, and where its costs come from."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from cluster.experiment import ExperimentError

LEAST = {"learners": 1, "shards": 1, "envs_per_actor": 0, "actors_per_node": 0, "learners_per_node": 0, "cores": 1}
ABOVE = {"gbps": 0.0, "learner_speed": 0.0, "seconds": 0.0}


@dataclass(frozen=True)
class PlanOptions:
    """Predict speed, policy lag, network, memory and cost of a run before there are machines for it.

    All other flags are the recipe's.

    Attributes:
        actors: how many; several numbers are planned one after another.
        learners: how many.
        shards: how many.
        envs_per_actor: environments of each actor; 0: as the recipe has it.
        actors_per_node: nodes that have only actors, so many each; 0: actors are on the driver's node.
        learners_per_node: nodes that have only learners, so many each; 0: learners are on the driver's node.
        cores: of each node; 0: as many as this machine has.
        gbps: of each node's network, in each direction.
        latency_ms: milliseconds that a message takes between two nodes.
        memory_gb: of each node; 0: not looked at.
        price: of a node, for an hour; 0: no cost is told.
        learner_speed: how much faster learners are than those that were measured, such as on a GPU.
        source: a file of --save, or finished runs of the recipe, from which costs are taken; empty: short runs are
            made and watched.
        seconds: that each of these short runs is watched.
        save: file in which the costs are kept.
    """

    actors: tuple[int, ...] = (1, 2, 4, 8)
    learners: int = 1
    shards: int = 1
    envs_per_actor: int = 0
    actors_per_node: int = 0
    learners_per_node: int = 0
    cores: int = 0
    gbps: float = 10.0
    latency_ms: float = 0.1
    memory_gb: float = 0.0
    price: float = 0.0
    learner_speed: float = 1.0
    source: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")] = field(default=())
    seconds: float = 6.0
    save: Path | None = None

    def checked(self) -> "PlanOptions":
        """The same, its cores filled in.

        Raises:
            ExperimentError: a number makes no sense.
        """
        filled = PlanOptions(**{**vars(self), "cores": self.cores or len(os.sched_getaffinity(0))})
        if not self.actors or min(self.actors) < 1:
            raise ExperimentError(f"--actors is {' '.join(map(str, self.actors))}, wanted numbers of at least 1")
        for name, least in LEAST.items():
            if getattr(filled, name) < least:
                raise ExperimentError(f"{flag(name)} is {getattr(self, name)}, wanted at least {least}")
        for name, above in ABOVE.items():
            if not getattr(self, name) > above:
                raise ExperimentError(f"{flag(name)} is {getattr(self, name)}, wanted more than {above:g}")
        for name in ("latency_ms", "memory_gb", "price"):
            if not getattr(self, name) >= 0:
                raise ExperimentError(f"{flag(name)} is {getattr(self, name)}, wanted at least 0")
        for name in ("actors_per_node", "learners_per_node"):
            if getattr(self, name) > filled.cores:
                raise ExperimentError(
                    f"{flag(name)} is {getattr(self, name)}, but in a cluster each takes a core, and nodes have "
                    f"{filled.cores}: lower it, or raise --cores"
                )
        return filled


def flag(name: str) -> str:
    """A field's flag."""
    return f"--{name.replace('_', '-')}"


def parse_options(flags: list[str]) -> PlanOptions:
    """Those of the command line; exits with code 2 on a bad flag, with code 0 on --help."""
    return tyro.cli(PlanOptions, args=flags, prog="contrail plan RECIPE").checked()
