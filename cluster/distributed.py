"""A run over Ray processes: the same turns as `Local`, taken by processes that wait for each other."""

from pathlib import Path
from typing import Any

import ray

from actors.actor import Report
from actors.environments import EnvironmentFailed
from cluster import checkpoints
from cluster.embedded import ProcessDied, start_ray
from cluster.experiment import Experiment, ExperimentError, Spaces
from cluster.histograms import Histograms, of_store
from cluster.limits import Limits
from cluster.processes import ActorProcess, LearnerProcess, remote
from cluster.roll_call import RollCall
from cluster.store import RayShard, ShardProcess
from cluster.vitals import Vitals
from cluster.weights import ChannelServer, RayWeights
from cluster.world import Advance, failures_of, store_metrics
from learners.checks import OutOfBounds
from learners.not_finite import NotFinite
from replay.opening import Places

CHANNEL = "the weight channel"
SHARD_RESTARTS = 100
"""How often a shard may die in a run: a new one goes on where it was; one that dies at once again wears this out."""

AHEAD = 8
"""Calls to a shard that may be under way before their answer is needed, where actors may run ahead of learners."""

PATIENCE = 10.0
"""Seconds that processes are given to finish before they are ended."""


class Distributed:
    """Actors, shards, learners and the weight channel, each in a Ray process.

    The driver (this object) owns all of them. It hands every actor its next block as soon as the last one is reported,
    and the learners their next step; they wait for each other, not for the driver. If any of them dies, `advance`
    raises with its name; if the driver dies, Ray ends the others.

    Args:
        experiment: checked.
        spaces: of its environment.
        places: of the store's files; on the node of all actors and learners.
        logs: folder for one log per process.
        resume: checkpoint to continue from.
    """

    def __init__(
        self, experiment: Experiment, spaces: Spaces, *, places: Places, logs: Path, resume: Path | None = None
    ) -> None:
        self.experiment, self.spaces = experiment, spaces
        self.places, self.logs, self.resume = places, logs, resume
        self.names: dict[Any, str] = {}
        self.roll = RollCall(self.names)
        self.collecting: dict[Any, Any] = {}
        self.learning: dict[Any, Any] = {}

    def __enter__(self) -> "Distributed":
        self.owns_ray = not ray.is_initialized()
        start_ray(self.experiment.topology.address)
        try:
            self._check_gpus()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _check_gpus(self) -> None:
        topology = self.experiment.topology
        wanted, there = topology.learners * topology.gpus_per_learner, int(ray.cluster_resources().get("GPU", 0))
        if wanted > there:
            raise ExperimentError(
                f"{topology.learners} learners with {topology.gpus_per_learner} GPUs each want {wanted}, there are "
                f"{there}: lower --topology.learners or --topology.gpus-per-learner"
            )

    def _start(self) -> None:
        """All processes come up side by side; each imports torch, which is what takes the time."""
        self.learners = [self._start_learner(rank) for rank in range(self.experiment.topology.learners)]
        self.channel = self._named(CHANNEL, remote(ChannelServer, num_cpus=0).remote())
        self.shards = [self._start_shard(index) for index in range(self.experiment.topology.shards)]
        weights = RayWeights(self.channel)
        # In turns there is nothing to do before its turn.
        ahead = 0 if self.experiment.topology.max_version_lag == 0 and not self.experiment.store else AHEAD
        shards = [RayShard(shard, f"shard-{index}", ahead=ahead) for index, shard in enumerate(self.shards)]
        start_block = self._resumed_version()
        actors = [
            self._start_actor(index, weights, shards[index % len(shards)], start_block)
            for index in range(self.experiment.topology.actors)
        ]
        starting = {actor.start.remote(): actor for actor in actors}
        self.collecting = {actor.collect.remote(): actor for actor in actors}
        address = self._get(self.learners[0].address.remote(), self.learners[0])
        for learner in self.learners:
            started = learner.start.remote(address, shards=shards, weights=weights, resume=self.resume)
            starting[started] = learner
        while starting:
            (ready,), _ = ray.wait(list(starting), num_returns=1)
            self._get(ready, starting.pop(ready))

    def _start_shard(self, index: int) -> Any:
        # Everybody may wait in a shard at once, so it must take many calls at a time.
        process = remote(ShardProcess, restarts=SHARD_RESTARTS, num_cpus=0, max_concurrency=1000)
        shards, seed = self.experiment.topology.shards, self.experiment.seed
        schema = self.spaces.schema(self.experiment)
        name, tables = f"shard-{index}", dict(self.experiment.tables)
        log = self.logs / f"{name}.log"
        made = process.remote(tables, self.places, schema, shards=shards, index=index, seed=seed, log=log)
        return self._named(name, made)

    def _start_learner(self, rank: int) -> Any:
        process = remote(LearnerProcess, num_cpus=0, num_gpus=self.experiment.topology.gpus_per_learner)
        name, failures = f"learner-{rank}", failures_of(self.places)
        log = self.logs / f"{name}.log"
        return self._named(name, process.remote(self.experiment, self.spaces, rank, log=log, failures=failures))

    def _start_actor(self, index: int, weights: RayWeights, shard: RayShard, start_block: int) -> Any:
        process, name = remote(ActorProcess, num_cpus=0), f"actor-{index}"
        made = process.remote(
            self.experiment,
            self.spaces,
            index,
            weights=weights,
            shard=shard,
            places=self.places,
            log=self.logs / f"{name}.log",
            start_block=start_block,
        )
        return self._named(name, made)

    def _resumed_version(self) -> int:
        return 0 if self.resume is None else checkpoints.read(self.resume)[1]["version"]

    def _named(self, name: str, process: Any) -> Any:
        self.names[process] = name
        return process

    def _get(self, reference: Any, process: Any) -> Any:
        """A call's result; a process's own error as itself, the death of any process with its name."""
        try:
            return ray.get(reference)
        except ray.exceptions.RayError as error:
            # An error that is both comes from a living process that asked a dead one.
            if isinstance(error, ray.exceptions.RayActorError) and not isinstance(error, ray.exceptions.RayTaskError):
                raise self._death(self.names[process]) from error
            cause = getattr(error, "cause", error)
            # A process that ends takes down those that wait for it: name the one that began.
            if not isinstance(cause, EnvironmentFailed | NotFinite | OutOfBounds) and (name := self._dead()):
                raise self._death(name) from error
            if not isinstance(cause, Exception):
                raise
            self.roll.note(self.names[process], "failed")
            raise cause from error

    def _dead(self) -> str | None:
        """The name of a process that is no more, if there is one; those that are busy are not waited for."""
        asked = {process.pid.remote(): name for process, name in self.names.items()}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=2.0)
        for reference in answered:
            try:
                ray.get(reference)
            except ray.exceptions.RayActorError:
                return asked[reference]
        return None

    def _death(self, name: str) -> ProcessDied:
        self.roll.note(name, "died")
        return ProcessDied(
            f"{name} died: it crashed or was killed, perhaps for want of memory; last words may be in {self.logs}"
        )

    def advance(self) -> Advance:
        """One learner step; meanwhile actors are given new blocks as they report old ones."""
        self.learning = {learner.step.remote(): learner for learner in self.learners}
        results: list[tuple[dict[str, float], int, int]] = []
        reports: list[Report] = []
        while self.learning:
            ready, _ = ray.wait([*self.collecting, *self.learning], num_returns=1)
            for reference in ready:
                if reference in self.learning:
                    results.append(self._get(reference, self.learning.pop(reference)))
                else:
                    reports.append(self._next_block(reference))
        metrics, steps, version = results[0]
        for shard in self.shards:
            metrics |= store_metrics(self._get(shard.statistics.remote(), shard), metrics)
        return Advance(metrics, reports, steps, version)

    def _next_block(self, reference: Any) -> Report:
        actor = self.collecting.pop(reference)
        report = self._get(reference, actor)
        self.collecting[actor.collect.remote()] = actor
        return report

    def save(self, folder: Path) -> None:
        """Rank 0 writes its checkpoint, with all ranks' random numbers."""
        asked = [(learner.random.remote(), learner) for learner in self.learners[1:]]
        random = {name: state for reference, learner in asked for name, state in self._get(reference, learner).items()}
        self._get(self.learners[0].save.remote(folder, random), self.learners[0])

    def limit(self, limits: Limits) -> None:
        """Every shard follows them."""
        for shard in self.shards:
            for table, values in limits.items():
                self._get(shard.limit.remote(table, values), shard)

    def histograms(self) -> Histograms:
        """All shards' added up, and the first learner's."""
        stored = of_store([self._get(shard.histograms.remote(), shard) for shard in self.shards])
        return stored | self._get(self.learners[0].histograms.remote(), self.learners[0])

    def vitals(self) -> list[Vitals]:
        """Those of all processes, as they last told them; another thread may ask."""
        return self.roll.call()

    def culprit(self) -> str:
        """The process that ended by itself before any other."""
        return self.roll.first

    def forget(self, before: int) -> None:
        """Let the store's journals forget what came before the oldest checkpoint; nobody waits for it."""
        for shard in self.shards:
            shard.forget.remote(before)

    def rescue(self, folder: Path) -> bool:
        """Rank 0 writes its checkpoint as soon as it no longer waits for rows, unless it failed half-way."""
        self._send_home()
        learner = self.learners[0]
        written = learner.rescue.remote(folder)
        ready, _ = ray.wait([written], timeout=PATIENCE)
        return bool(ready) and self._get(written, learner)

    def __exit__(self, *error: object) -> None:
        """End all in order: those who wait are sent home, environments and files closed, then Ray itself."""
        self.roll.end()
        self._send_home()
        self._quietly([process.close.remote() for process, name in self.names.items() if name != CHANNEL])
        for process in self.names:
            ray.kill(process)
        if self.owns_ray:
            ray.shutdown()

    def _send_home(self) -> None:
        """Let go those that wait for rows, room or weights, and let them finish what they do."""
        waited_for = [process for process, name in self.names.items() if name.startswith((CHANNEL, "shard"))]
        self._quietly([process.stop.remote() for process in waited_for])
        self._quietly([*self.collecting, *self.learning])

    def _quietly(self, references: list[Any]) -> None:
        """Wait a while for calls whose failure changes nothing any more: their processes are ended next."""
        if references:
            ray.wait(references, num_returns=len(references), timeout=PATIENCE)
