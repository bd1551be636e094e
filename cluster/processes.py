"""The processes of a distributed run: thin Ray shells around ordinary objects.

Each shell builds its object where it runs, gives its process a log file, and turns waiting into awaiting. Who owns
what: the driver owns all processes and ends them; a shard owns its segments' files; rank 0 of the learners owns
checkpoints; the channel server owns the newest weights. Who waits for whom: actors for weights (in the channel server)
and for room (in their shard), learners for rows (in the shards) and for each other.
"""

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.actor import Actor, Report
from cluster import checkpoints
from cluster.assembly import make_actor, make_learner
from cluster.experiment import Experiment, Spaces
from cluster.histograms import Histograms
from cluster.logs import log_to
from cluster.store import RayShard
from cluster.vitals import Vitals, of_this_process
from cluster.weights import RayWeights, Stopped
from cluster.world import learning_device
from learners.group import join, leave
from replay.opening import Places


class ActorProcess:
    """An actor in a process of its own, with one thread."""

    def __init__(
        self,
        experiment: Experiment,
        spaces: Spaces,
        index: int,
        *,
        weights: RayWeights,
        shard: RayShard,
        places: Places,
        log: Path,
        start_block: int,
    ) -> None:
        log_to(log)
        torch.set_num_threads(1)
        self._shard = shard
        self._report: Report | None = None
        self._make = partial(
            make_actor,
            experiment,
            spaces,
            index,
            weights=weights,
            places=places,
            commit=shard.commit,
            start_block=start_block,
        )

    def start(self) -> None:
        """Make the environments and reset them: here and not above, since Ray hides an error made there."""
        send = None if self._shard.near() else self._shard.receive
        self._actor: Actor = self._make(send=send)

    def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    def vitals(self) -> Vitals:
        """How the process is; its rate is that of its last block."""
        if self._report is None:
            return of_this_process(runs=False)
        seconds = self._report.seconds
        return of_this_process(rate=self._report.steps / sum(seconds.values()), unit="env steps/s", seconds=seconds)

    def collect(self) -> Report:
        """One block."""
        self._report = self._actor.collect()
        return self._report

    def close(self) -> None:
        """Close the environments and the writer."""
        self._actor.close()


class LearnerProcess:
    """A learner in a process of its own."""

    def __init__(self, experiment: Experiment, spaces: Spaces, rank: int, *, log: Path, failures: Path) -> None:
        log_to(log)
        torch.set_num_threads(experiment.topology.threads)
        self._experiment, self._spaces, self._rank, self._failures = experiment, spaces, rank, failures
        self._between_steps = True
        self._seconds: dict[str, float] = {}

    def address(self) -> str:
        """A free address on this node, for rank 0 to listen at."""
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"tcp://{host}:{probe.getsockname()[1]}"

    def start(self, address: str, *, shards: list[RayShard], weights: RayWeights, resume: Path | None) -> int:
        """Join the other ranks, take up a checkpoint if there is one, publish; returns the version."""
        experiment, device = self._experiment, learning_device(self._experiment)
        group = join(address, self._rank, experiment.topology.learners, device=device)
        reachable = [shard if shard.near() else FarRayShard(shard) for shard in shards]
        self._learner = make_learner(
            experiment,
            self._spaces,
            group,
            shards=reachable,
            publish=weights,
            device=device,
            failures=self._failures,
        )
        if resume is not None:
            checkpoints.restore(self._learner, resume)
        self._learner.announce()
        return self._learner.version

    def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    def vitals(self) -> Vitals:
        """How the process is; its rate is that of its last step."""
        if not self._seconds:
            return of_this_process(runs=False)
        return of_this_process(rate=1 / sum(self._seconds.values()), unit="learner steps/s", seconds=self._seconds)

    def step(self) -> tuple[dict[str, float], int, int]:
        """One learner step: its metrics, the env steps trained on so far, and the version."""
        self._between_steps = False
        try:
            metrics = self._learner.step()
        except (Stopped, ray.exceptions.RayError):  # it still waited for rows
            self._between_steps = True
            raise
        self._between_steps = True
        self._seconds = {stage: metrics[f"time/learner_{stage}"] for stage in ("wait", "update")}
        return metrics, self._learner.steps, self._learner.version

    def histograms(self) -> Histograms:
        """Of what the learner has read last."""
        return self._learner.histograms()

    def random(self) -> dict[str, torch.Tensor]:
        """The state of this rank's random numbers."""
        return self._learner.random()

    def save(self, folder: Path, random: dict[str, torch.Tensor] | None = None) -> None:
        """Write a checkpoint, with the other ranks' random numbers."""
        checkpoints.write(folder, self._learner, random)

    def rescue(self, folder: Path) -> bool:
        """Write a checkpoint, unless a step failed half-way; whether it did."""
        if self._between_steps:
            self.save(folder)
        return self._between_steps

    def close(self) -> None:
        """Leave the group."""
        self._learner.close()
        leave()


class FarRayShard:
    """A shard as learners on another machine see it: it sends rows, and takes priorities.

    Args:
        shard: the same shard as those on its machine see it.
    """

    def __init__(self, shard: RayShard) -> None:
        self.rows, self.prioritise = shard.rows, shard.prioritise


def remote(process: type, *, restarts: int = 0, **options: Any) -> Any:
    """A process class as a Ray actor class.

    Those that have no way of becoming the same again are not restarted behind the driver's back. The calls of one that
    is restarted are repeated.

    Segments are shared through this node's memory, so in a cluster of several nodes all processes stay on the driver's.
    """
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(
        max_restarts=restarts, max_task_retries=-1 if restarts else 0, scheduling_strategy=here, **options
    )(process)
