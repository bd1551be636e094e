"""Where a run happens: all its parts, one learner step after another. `Local` is the specification of `Distributed`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from actors.actor import Actor, Report
from actors.environments import EnvironmentFailed
from actors.episodes import Episode
from cluster import checkpoints
from cluster.assembly import make_actor, make_learner, shard_of
from cluster.evaluation import episodes_of, weights_of
from cluster.experiment import Experiment, ExperimentError, Spaces
from cluster.histograms import Histograms, of_store
from cluster.limits import Limits
from cluster.local_weights import LocalWeights
from cluster.snapshots import Snapshots
from cluster.vitals import Vitals
from learners.group import Group
from replay.messages import NotReady
from replay.opening import Places, open_shard
from replay.recovery import Recorder
from replay.shard import Shard


class ProcessDied(RuntimeError):
    """A process of the run ended by itself; names it and its log.

    Args:
        text: of the message.
        process: its name.
        cause: in a few words.
        begin_again: whether the run may go on from its newest checkpoint: nothing says that this will happen again.
    """

    def __init__(self, text: str, *, process: str = "", cause: str = "", begin_again: bool = False) -> None:
        super().__init__(text)
        self.process, self.cause, self.begin_again = process, cause, begin_again


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
        """Write a checkpoint of the learners between two steps, with the actors' snapshots where there are some."""
        ...

    def evaluate(self, checkpoint: Path) -> None:
        """Begin the experiment's greedy episodes with a checkpoint's weights: `evaluated` gives them."""
        ...

    def evaluated(self) -> list[Episode] | None:
        """The episodes, once; None: they are not played yet. Training does not wait for them.

        Raises:
            Exception: they cannot be played, not even by another process.
        """
        ...

    def limit(self, limits: Limits) -> None:
        """Change limits of tables from now on."""
        ...

    def histograms(self) -> Histograms:
        """Counts and edges by tag: windows' priorities and ages, and how old and off-policy the last rows were."""
        ...

    def vitals(self) -> list[Vitals]:
        """How the processes are that it started, this one not among them; does not wait, and takes any thread."""
        ...

    def culprit(self) -> str:
        """Which of them ended by itself before any other; empty: none, the error was in this process."""
        ...

    def forget(self, before: int) -> None:
        """No checkpoint is left from before so many learner steps: the store need not go back to it either."""
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
        places: of the store's files.
        resume: checkpoint to continue from.
        say: hears of environments whose state cannot be kept.
    """

    def __init__(
        self,
        experiment: Experiment,
        spaces: Spaces,
        *,
        places: Places,
        resume: Path | None = None,
        say: Callable[[str], object] = print,
    ) -> None:
        self.experiment, self.spaces, self.places, self.resume, self.say = experiment, spaces, places, resume, say

    def __enter__(self) -> "Local":
        torch.set_num_threads(self.experiment.topology.threads)
        self.actors: list[Actor] = []
        self.shards: list[Shard] = []
        self.recorders: list[Recorder] = []
        self.between_steps = True
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        weights = LocalWeights()
        experiment = self.experiment
        for index in range(experiment.topology.shards):
            shard, recorder = open_shard(
                experiment.tables, self.places, shards=experiment.topology.shards, index=index, seed=experiment.seed
            )
            self.shards.append(shard)
            self.recorders.append(recorder)
        self.learner = make_learner(
            self.experiment,
            self.spaces,
            Group(),
            shards=self.shards,
            publish=weights,
            device=learning_device(self.experiment),
            failures=failures_of(self.places),
        )
        found: dict[int, bytes] = {}
        if self.resume is not None:
            checkpoints.restore(self.learner, self.resume)
            found = checkpoints.snapshots(self.resume)
        self.learner.announce()
        self.snapshots = Snapshots(found, self.learner.version, self.say)
        for index, snapshot in enumerate(self.snapshots.first(self.experiment.topology.actors)):
            self.actors.append(
                make_actor(
                    self.experiment,
                    self.spaces,
                    index,
                    weights=weights,
                    commit=self.shards[shard_of(self.experiment, index)].commit,
                    places=self.places,
                    start_block=self.learner.version,
                    snapshot=snapshot,
                )
            )

    def __exit__(self, *error: object) -> None:
        for actor in self.actors:
            actor.close()
        for shard, recorder in zip(self.shards, self.recorders, strict=True):
            shard.close()
            recorder.close()

    def advance(self) -> Advance:
        """One block of every actor, one learner step.

        Raises:
            ExperimentError: a table cannot serve the step, and would not in any later one.
        """
        reports = [self._block_of(index) for index in range(len(self.actors))]
        self.between_steps = False
        try:
            metrics = self.learner.step()
        except NotReady as missing:
            raise ExperimentError(
                f"{missing}, and actors wait for this learner step: draw fewer or shorter windows, or raise rows"
            ) from missing
        self.between_steps = True
        for shard, recorder in zip(self.shards, self.recorders, strict=True):
            recorder.tidy()
            metrics |= store_metrics(shard.statistics(), metrics)
        self.snapshots.forget(self.learner.version)
        return Advance(metrics, reports, self.learner.steps, self.learner.version)

    def _block_of(self, index: int) -> Report:
        try:
            report = self.actors[index].collect()
        except EnvironmentFailed:
            self.snapshots.spoil(index)
            raise
        self.snapshots.add(index, report)
        return report

    def save(self, folder: Path) -> None:
        """Write the learner's checkpoint, with the actors' snapshots."""
        checkpoints.write(folder, *self.learner.state(), self.snapshots.at(self.learner.version))

    def evaluate(self, checkpoint: Path) -> None:
        """It is the evaluator's turn next."""
        self.evaluating = checkpoint

    def evaluated(self) -> list[Episode]:
        """All episodes, played now."""
        return episodes_of(self.experiment, *weights_of(self.evaluating))

    def limit(self, limits: Limits) -> None:
        """Every shard follows them."""
        for shard in self.shards:
            for table, values in limits.items():
                shard.limit(table, values)

    def histograms(self) -> Histograms:
        """All shards' added up, and the learner's."""
        return of_store([shard.histograms() for shard in self.shards]) | self.learner.histograms()

    def vitals(self) -> list[Vitals]:
        """None: it starts no processes."""
        return []

    def culprit(self) -> str:
        """Nobody else."""
        return ""

    def forget(self, before: int) -> None:
        """Let the store's journals forget what came before the oldest checkpoint."""
        for recorder in self.recorders:
            recorder.forget(before)

    def rescue(self, folder: Path) -> bool:
        """Write the learner's checkpoint, unless it was the learner that failed."""
        if self.between_steps:
            self.save(folder)
        return self.between_steps


def learning_device(experiment: Experiment) -> torch.device:
    """Where a learner learns: on its GPU if it was given one."""
    return torch.device("cuda" if experiment.topology.gpus_per_learner else "cpu")


def failures_of(places: Places) -> Path:
    """Where a learner keeps the minibatch that ended a run."""
    return places.kept.parent / "failures"


def store_metrics(statistics: dict[str, float], so_far: dict[str, float]) -> dict[str, float]:
    """A shard's statistics under `replay/`, added to those of the shards before it."""
    tagged = {f"replay/{name}": value for name, value in statistics.items()}
    return {tag: value + so_far.get(tag, 0.0) for tag, value in tagged.items()}
