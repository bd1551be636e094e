"""The processes of a distributed run: thin Ray shells around ordinary objects.

Each shell builds its object where it runs, gives its process a log file, and turns waiting into awaiting. Who owns
what: the driver owns all processes, ends them, and writes checkpoints; a shard owns its segments' files; rank 0 owns
the newest weights, which the channel server has mapped, too. Who waits for whom: actors for weights (in the channel
server) and for room (in their shard), learners for rows (in the shards) and for each other.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch

from actors.actor import Actor, Report
from cluster.assembly import make_actor, make_learner
from cluster.checkpoints import fitting
from cluster.experiment import Experiment, Spaces
from cluster.histograms import Histograms
from cluster.kept import keeping_folder
from cluster.lock import in_use
from cluster.logs import Log
from cluster.segments_folder import remove_orphans
from cluster.shard_handle import FarRayShard, RayShard
from cluster.vitals import Vitals, of_this_process
from cluster.weights import RayWeights, Stopped
from cluster.world import learning_device
from learners.group import join, leave
from learners.last_versions import LastVersions
from learners.learner import STAGES, Learner
from replay.opening import Places

State = tuple[dict[str, torch.Tensor], dict[str, Any]]
"""Of a learner: see `Learner.state`."""


class ActorProcess:
    """An actor in a process of its own, with one thread.

    Where the number of actors changes, the process stays: it lays its streams down and takes up others.
    """

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
        home: str,
        start_block: int,
        life: int,
        snapshot: bytes | None,
        segment_rows: int,
    ) -> None:
        self._log = log_here(log, home)
        torch.set_num_threads(1)
        self._actor: Actor | None = None
        self._report: Report | None = None
        self._make: Callable[..., Actor] = partial(
            make_actor, spaces=spaces, index=index, weights=weights, places=places, segment_rows=segment_rows
        )
        self.take_up(experiment, shard=shard, start_block=start_block, life=life, snapshot=snapshot)

    def take_up(
        self, experiment: Experiment, *, shard: RayShard, start_block: int, life: int, snapshot: bytes | None
    ) -> None:
        """Be an actor of an experiment from a block on; see `make_actor`."""
        self._experiment, self._shard = experiment, shard
        same: dict[str, Any] = {"start_block": start_block, "life": life, "snapshot": snapshot}
        self._make = partial(self._make, experiment=experiment, commit=shard.commit, **same)

    def lay_down(self) -> None:
        """Play no more, once all that was committed has arrived."""
        self.close()
        self._actor = None

    def warm(self) -> None:
        """Import what the environments need, and see that one can be made here."""
        self._experiment.environment.make(1).close()

    def start(self) -> None:
        """Make the environments, if they are not there yet: not above, since Ray hides an error made there."""
        if self._actor is None:
            send = None if self._shard.near() else self._shard.receive
            self._actor = self._make(send=send)

    def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    def vitals(self) -> Vitals:
        """How the process is; its rate is that of its last block."""
        printed = self._log.news()
        if self._report is None:
            return of_this_process(runs=False, printed=printed)
        seconds = self._report.seconds
        rate = self._report.steps / sum(seconds.values())
        return of_this_process(rate=rate, unit="env steps/s", seconds=seconds, printed=printed)

    def collect(self) -> Report:
        """One block."""
        self.start()
        assert self._actor is not None
        report = self._actor.collect()
        self._report = replace(report, snapshot=None)  # which the driver keeps
        return report

    def close(self) -> None:
        """Close the environments and the writer, when no commit is under way any more."""
        try:
            self._shard.settle()
        finally:
            if self._actor is not None:
                self._actor.close()


class LearnerProcess:
    """A learner in a process of its own.

    Args:
        experiment: checked.
        spaces: of its environment.
        rank: of the learner.
        log: where what it prints goes.
        home: the driver's node.
        failures: folder for what ended the run.
        live: folder of live segments on the driver's machine.
    """

    def __init__(
        self, experiment: Experiment, spaces: Spaces, rank: int, *, log: Path, home: str, failures: Path, live: Path
    ) -> None:
        self._log = log_here(log, home)
        torch.set_num_threads(experiment.topology.threads)
        self._experiment, self._spaces, self._rank, self._failures = experiment, spaces, rank, failures
        self._learner: Learner | None = None
        self._between_steps = True
        self._seconds: dict[str, float] = {}
        self._far = is_far(home)
        self._folder = keeping_folder(live, far=self._far)
        self._kept = LastVersions(self._folder, rank)
        if self._far:
            in_use(self._folder)
            remove_orphans(but=self._folder)  # no driver comes by here and does

    def address(self) -> str:
        """A free address on this node, for rank 0 to listen at."""
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"tcp://{host}:{probe.getsockname()[1]}"

    def kept(self) -> list[int]:
        """Versions that a process before this one kept on this machine, whole."""
        return self._kept.versions()

    def handed_over(self, version: int) -> State:
        """What a process before this one kept, for others: without what is this rank's own."""
        tensors, values = self._kept.read(version)
        shared = {name: tensor for name, tensor in tensors.items() if not name.startswith("random")}
        return shared, {name: value for name, value in values.items() if name != "priorities"}

    def start(
        self,
        address: str,
        *,
        shards: list[RayShard],
        weights: RayWeights,
        state: State | int | None,
        origin: Path | None = None,
    ) -> None:
        """Join the other ranks and publish.

        Args:
            address: of rank 0.
            shards: of the store.
            weights: the channel.
            state: to go on from; a version: what was kept of it on this machine; None: from the beginning.
            origin: checkpoint that the state is of.
        """
        experiment, device = self._experiment, learning_device(self._experiment)
        if isinstance(state, int):
            state = self._kept.take_up(state)
        if interface := interface_of(ray.util.get_node_ip_address()):
            for library in ("GLOO", "NCCL"):  # which go by the host's name else, and that may lead nowhere
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", interface)
        self._learner = learner = make_learner(
            experiment,
            self._spaces,
            join(address, self._rank, experiment.topology.learners, device=device),
            shards=[shard if shard.near() else FarRayShard(shard) for shard in shards],
            publish=weights,
            device=device,
            failures=self._failures,
            keep=self._kept,
        )
        if state is not None:
            with fitting(origin) if origin is not None else nullcontext():
                learner.restore(*state)
        learner.announce()

    def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    def vitals(self) -> Vitals:
        """How the process is; its rate is that of its last step."""
        printed = self._log.news()
        if not self._seconds:
            return of_this_process(runs=False, printed=printed)
        rate = 1 / sum(self._seconds.values())
        return of_this_process(rate=rate, unit="learner steps/s", seconds=self._seconds, printed=printed)

    def step(self) -> tuple[dict[str, float], int, int]:
        """One learner step: its metrics, the env steps trained on so far, and the version."""
        self._between_steps = False
        try:
            metrics = self._started.step()
        except (Stopped, ray.exceptions.RayError):  # it still waited for rows
            self._between_steps = True
            raise
        self._between_steps = True
        self._seconds = {stage: metrics[f"time/learner_{stage}"] for stage in STAGES}
        return metrics, self._started.steps, self._started.version

    def histograms(self) -> Histograms:
        """Of what the learner has read last."""
        return self._started.histograms()

    def random(self) -> dict[str, torch.Tensor]:
        """The state of this rank's random numbers."""
        return self._started.random()

    def state(self) -> State:
        """All that a checkpoint must hold, but the other ranks' random numbers."""
        tensors, values = self._started.state()
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}, values

    def rescued(self) -> State | None:
        """The state, unless a step failed half-way."""
        return self.state() if self._learner is not None and self._between_steps else None

    def close(self) -> None:
        """Leave the group; nobody will go on from what was kept."""
        if self._learner is not None:
            self._learner.close()
        self._kept.remove()
        if self._far:
            with suppress(OSError):  # another learner's are there
                self._folder.rmdir()
        leave()

    @property
    def _started(self) -> Learner:
        assert self._learner is not None
        return self._learner


def log_here(path: Path, home: str) -> Log:
    """This process's log, with the run's or, on another node than the driver's, here."""
    return Log(path, far=is_far(home))


def is_far(home: str) -> bool:
    """Whether this process is on another node than the driver's."""
    return ray.get_runtime_context().get_node_id() != home


def interface_of(address: str) -> str:
    """The network interface that has an address; "" where it is none of this machine's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            with suppress(OSError):  # it has no address
                found = fcntl.ioctl(probe, SIOCGIFADDR, request)
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return ""


SIOCGIFADDR = 0x8915
