"""A run over Ray processes: the same turns as `Local`, taken by processes that wait for each other."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from actors.actor import Report
from actors.environments import EnvironmentFailed
from cluster import checkpoints
from cluster.experiment import Experiment, ExperimentError, Spaces
from cluster.processes import ActorProcess, LearnerProcess, remote
from cluster.store import RayShard, ShardProcess
from cluster.weights import ChannelServer, RayWeights
from cluster.world import Advance, store_metrics
from learners.gradient import NotFinite

LEAN = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_enable_open_telemetry": "0",
    "RAY_worker_niceness": "0",
}
"""Settings of an embedded Ray that nobody else joins: it listens on this machine only, starts in half the time, and its
processes are not put behind everything else on the machine (Ray's own default is a niceness of 15)."""

CHANNEL = "the weight channel"
PATIENCE = 10.0
"""Seconds that processes are given to finish before they are ended."""


class ProcessDied(RuntimeError):
    """A process of the run ended by itself; names it and its log."""


def start_ray(topology_address: str) -> None:
    """Join a Ray cluster, or start one inside this process that ends with it."""
    if ray.is_initialized():
        return
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if topology_address:
            _join_ray(topology_address)
        else:
            _embed_ray()
    finally:
        signal.signal(signal.SIGTERM, on_terminate)  # Ray took it over


def _join_ray(address: str) -> None:
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ValueError, ConnectionError, RuntimeError) as error:
        raise ExperimentError(
            f"no Ray cluster can be joined at {address!r} ({error}): start one with `ray start --head`, or leave out "
            "--topology.address"
        ) from error


def _embed_ray() -> None:
    for name, value in LEAN.items():
        os.environ.setdefault(name, value)
    # Its processes find modules where this one does: beside a recipe's own file, for one.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    # Nobody else joins it, so it must not be reached from elsewhere. Without this Ray turns 127.0.0.1 into the
    # machine's own address, and its services listen on every interface.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        ray.init(
            "local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=512 * 2**20,
            _node_ip_address="127.0.0.1",
        )
    except Exception as error:  # Ray raises bare ones: too slow a start, no memory, no port
        raise ProcessDied(f"Ray did not start: {error}; is the machine overloaded, or short of memory?") from error


class Distributed:
    """Actors, shards, learners and the weight channel, each in a Ray process.

    The driver (this object) owns all of them. It hands every actor its next block as soon as the last one is reported,
    and the learners their next step; they wait for each other, not for the driver. If any of them dies, `advance`
    raises with its name; if the driver dies, Ray ends the others.

    Args:
        experiment: checked.
        spaces: of its environment.
        replay_folder: where segments go; on the node of all actors and learners.
        logs: folder for one log per process.
        resume: checkpoint to continue from.
    """

    def __init__(
        self, experiment: Experiment, spaces: Spaces, *, replay_folder: Path, logs: Path, resume: Path | None = None
    ) -> None:
        self.experiment, self.spaces = experiment, spaces
        self.replay_folder, self.logs, self.resume = replay_folder, logs, resume
        self.names: dict[Any, str] = {}
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
        shards = [RayShard(shard, f"shard-{index}") for index, shard in enumerate(self.shards)]
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
        process = remote(ShardProcess, num_cpus=0, max_concurrency=1000)
        shards, seed = self.experiment.topology.shards, self.experiment.seed
        made = process.remote(dict(self.experiment.tables), shards=shards, index=index, seed=seed)
        return self._named(f"shard-{index}", made)

    def _start_learner(self, rank: int) -> Any:
        process = remote(LearnerProcess, num_cpus=0, num_gpus=self.experiment.topology.gpus_per_learner)
        name = f"learner-{rank}"
        return self._named(name, process.remote(self.experiment, self.spaces, rank, log=self.logs / f"{name}.log"))

    def _start_actor(self, index: int, weights: RayWeights, shard: RayShard, start_block: int) -> Any:
        process, name = remote(ActorProcess, num_cpus=0), f"actor-{index}"
        made = process.remote(
            self.experiment,
            self.spaces,
            index,
            weights=weights,
            shard=shard,
            replay_folder=self.replay_folder,
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
            if not isinstance(cause, EnvironmentFailed | NotFinite) and (name := self._dead()):
                raise self._death(name) from error
            if not isinstance(cause, Exception):
                raise
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
        """Rank 0 writes its checkpoint."""
        self._get(self.learners[0].save.remote(folder), self.learners[0])

    def rescue(self, folder: Path) -> bool:
        """Rank 0 writes its checkpoint as soon as it no longer waits for rows, unless it failed half-way."""
        self._send_home()
        learner = self.learners[0]
        written = learner.rescue.remote(folder)
        ready, _ = ray.wait([written], timeout=PATIENCE)
        return bool(ready) and self._get(written, learner)

    def __exit__(self, *error: object) -> None:
        """End all in order: those who wait are sent home, environments and files closed, then Ray itself."""
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
