"""Where a run happens: all its parts, one learner step after another. `Local` is the specification of `Distributed`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from actors.actor import Actor, Report
from cluster import checkpoints
from cluster.assembly import make_actor, make_learner, make_shard
from cluster.experiment import Experiment, Spaces
from cluster.weights import LocalWeights
from learners.group import Group
from replay.shard import Shard


@dataclass(frozen=True)
class Advance:
    """What one learner step brought.

    Attributes:
        metrics: of the learners and the store, by tag.
        reports: blocks that actors finished since the last one.
        steps: env steps (decisions) trained on since the run began.
        version: learner steps since the run began.
    """

    metrics: dict[str, float]
    reports: list[Report]
    steps: int
    version: int


@runtime_checkable
class World(Protocol):
    """A run's processes. Entering starts them, leaving ends them in order: nothing of them is left behind."""

    def __enter__(self) -> "World": ...

    def __exit__(self, *error: object) -> None: ...

    def advance(self) -> Advance:
        """One learner step: actors explore, learners read, learn and publish."""
        ...

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the learners between two steps."""
        ...

    def rescue(self, folder: Path) -> bool:
        """After `advance` failed: write a checkpoint of the finished steps.

        Returns:
            False where that cannot be had, because a learner died or failed in the middle of a step.
        """
        ...


class Local:
    """Everything in this process, in turns: every actor collects a block, then the learner takes a step.

    Owns all parts. Nothing waits, since rows and weights are there when it is their turn. If the process dies, all
    since the last checkpoint is lost.

    Args:
        experiment: checked; with one learner.
        spaces: of its environment.
        replay_folder: where segments go.
        resume: checkpoint to continue from.
    """

    def __init__(
        self, experiment: Experiment, spaces: Spaces, *, replay_folder: Path, resume: Path | None = None
    ) -> None:
        self.experiment, self.spaces, self.replay_folder, self.resume = experiment, spaces, replay_folder, resume

    def __enter__(self) -> "Local":
        torch.set_num_threads(self.experiment.topology.threads)
        self.actors: list[Actor] = []
        self.shards: list[Shard] = []
        self.between_steps = True
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        weights = LocalWeights()
        self.shards += [make_shard(self.experiment, i) for i in range(self.experiment.topology.shards)]
        self.learner = make_learner(
            self.experiment,
            self.spaces,
            Group(),
            shards=self.shards,
            publish=weights,
            device=learning_device(self.experiment),
        )
        if self.resume is not None:
            checkpoints.restore(self.learner, self.resume)
        self.learner.announce()
        for index in range(self.experiment.topology.actors):
            self.actors.append(
                make_actor(
                    self.experiment,
                    self.spaces,
                    index,
                    weights=weights,
                    commit=self.shards[index % len(self.shards)].commit,
                    folder=self.replay_folder,
                    start_block=self.learner.version,
                )
            )

    def __exit__(self, *error: object) -> None:
        for actor in self.actors:
            actor.close()
        for shard in self.shards:
            shard.close()

    def advance(self) -> Advance:
        """One block of every actor, one learner step."""
        reports = [actor.collect() for actor in self.actors]
        self.between_steps = False
        metrics = self.learner.step()
        self.between_steps = True
        for shard in self.shards:
            metrics |= store_metrics(shard.statistics(), metrics)
        return Advance(metrics, reports, self.learner.steps, self.learner.version)

    def save(self, folder: Path) -> None:
        """Write the learner's checkpoint."""
        checkpoints.write(folder, self.learner)

    def rescue(self, folder: Path) -> bool:
        """Write the learner's checkpoint, unless it was the learner that failed."""
        if self.between_steps:
            self.save(folder)
        return self.between_steps


def learning_device(experiment: Experiment) -> torch.device:
    """Where a learner learns: on its GPU if it was given one."""
    return torch.device("cuda" if experiment.topology.gpus_per_learner else "cpu")


def store_metrics(statistics: dict[str, float], so_far: dict[str, float]) -> dict[str, float]:
    """A shard's statistics under `replay/`, added to those of the shards before it."""
    tagged = {f"replay/{name}": value for name, value in statistics.items()}
    return {tag: value + so_far.get(tag, 0.0) for tag, value in tagged.items()}
