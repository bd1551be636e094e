"""A run's Ray processes by name: where each is started, and how another takes its place."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import ray

from actors.environments import EnvironmentFailed
from cluster.evaluator_process import EvaluatorProcess
from cluster.experiment import Experiment, Spaces
from cluster.faults import cause_of
from cluster.placement import SAY_AFTER, Placement
from cluster.processes import ActorProcess, LearnerProcess
from cluster.roll_call import RollCall
from cluster.shard_handle import RayShard
from cluster.store import ShardProcess
from cluster.weights import ChannelServer, RayWeights
from cluster.world import ProcessDied, failures_of
from learners.checks import OutOfBounds
from learners.not_finite import NotFinite
from replay.opening import Places

CHANNEL, EVALUATOR = "the weight channel", "evaluator"
RESTARTS = 100
"""How often Ray may start a shard or the channel again: a new one goes on where it was; one that dies at once again
wears this out."""
CALLS = 100_000
"""That the channel and a shard take at a time. Everybody may wait there at once, and who ends the waiting must get in,
too: by Ray's own 1,000 a run of 1,000 actors stands still."""
DIED = (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError)
"""What Ray says of a process that is no more."""
remote: Any = ray.remote
"""With options whose names are not known here."""


class Roster:
    """A run's processes, known by name; the driver owns them all.

    Shards and the channel are started again by Ray, which also repeats the calls that were under way. Actors and
    learners are replaced by the driver, who knows where a new one has to go on.

    Args:
        experiment: checked.
        spaces: of its environment.
        places: of the store's files.
        logs: folder for one log per process.
        placement: where they go.

    Attributes:
        names: of the living, by handle.
        lives: how many of a name there were: a process that takes up other streams begins another life.
        roll: how they are.
    """

    def __init__(
        self, experiment: Experiment, spaces: Spaces, *, places: Places, logs: Path, placement: Placement
    ) -> None:
        self.experiment, self.spaces, self.places, self.logs = experiment, spaces, places, logs
        self.placement = placement
        self.names: dict[Any, str] = {}
        self.lives: Counter[str] = Counter()
        self.roll = RollCall(self.names, logs)
        # Since when, and the first answer to come, by handle: of all, and of those for whom nobody stands still.
        self._starting: dict[Any, tuple[float, Any]] = {}
        self._added: dict[Any, tuple[float, Any]] = {}

    def channel(self) -> Any:
        """Start the weight channel."""
        return self._named(CHANNEL, self._lasting(ChannelServer, max_concurrency=CALLS).remote())

    def shard(self, index: int, *, behind: int) -> Any:
        """Start a shard; see `ShardProcess`."""
        shards, seed, name = self.experiment.topology.shards, self.experiment.seed, f"shard-{index}"
        schema, tables = self.spaces.schema(self.experiment), dict(self.experiment.tables)
        process = self._lasting(ShardProcess, max_concurrency=CALLS)
        same = {"shards": shards, "index": index, "seed": seed, "behind": behind, "log": self.logs / f"{name}.log"}
        return self._named(name, process.remote(tables, self.places, schema, **same))

    def learner(self, rank: int) -> Any:
        """Start the process of a learner; it joins the others later."""
        process, name = remote(**self.placement.learner(rank))(LearnerProcess), f"learner-{rank}"
        made = process.remote(
            self.experiment,
            self.spaces,
            rank,
            log=self.logs / f"{name}.log",
            home=self.placement.home(),
            failures=failures_of(self.places),
            live=self.places.live,
        )
        return self._named(name, made)

    def actor(
        self,
        index: int,
        experiment: Experiment,
        *,
        weights: RayWeights,
        shard: RayShard,
        start_block: int,
        snapshot: bytes | None,
        segment_rows: int,
    ) -> Any:
        """Start the process of an actor; it makes its environments with its first block."""
        process, name = remote(**self.placement.actor())(ActorProcess), f"actor-{index}"
        made = process.remote(
            experiment,
            self.spaces,
            index,
            weights=weights,
            shard=shard,
            places=self.places,
            log=self.logs / f"{name}.log",
            home=self.placement.home(),
            start_block=start_block,
            life=self.lives[name],
            snapshot=snapshot,
            segment_rows=segment_rows,
        )
        return self._named(name, made)

    def evaluator(self) -> Any:
        """Start the process of the evaluator."""
        process, log = remote(**self.placement.evaluator())(EvaluatorProcess), self.logs / f"{EVALUATOR}.log"
        return self._named(EVALUATOR, process.remote(self.experiment, log=log, home=self.placement.home()))

    def lacks_room(self, *, added: bool) -> bool:
        """Whether actors or learners have been waiting for a place in a cluster for a while.

        Args:
            added: also actors without whom the run goes on.
        """
        waiting = [self._starting, self._added] if added else [self._starting]
        return self.placement.joined and max(self._waiting(those)[1] for those in waiting) > SAY_AFTER

    def next_life(self, name: str) -> int:
        """The number of another life of a process that goes on."""
        self.lives[name] += 1
        return self.lives[name] - 1

    def release(self, process: Any) -> None:
        """End a process that is not wanted any more; none takes its place."""
        name = self.names.pop(process)
        self._has_place(process)
        self.roll.left(process, name)
        ray.kill(process)

    def not_awaited(self, process: Any) -> None:
        """Nobody stands still until a process starts: nothing has to be said of it."""
        self._added[process] = self._starting.pop(process)

    def dismiss(self, process: Any) -> None:
        """End a process for good, be it dead or only cut off."""
        name = self.names.pop(process)
        self._has_place(process)
        self.roll.replaced(process, name)
        ray.kill(process)

    def result(self, reference: Any, process: Any) -> Any:
        """What a call gives.

        Raises:
            ProcessDied: the process is no more, or another for which it waited.
            Exception: what the process raised, as itself.
        """
        while not self.wait([reference]):
            pass
        self._has_place(process)
        try:
            return ray.get(reference)
        except ray.exceptions.RayError as error:
            # An error that is both comes from a living process that asked a dead one.
            if isinstance(error, DIED) and not isinstance(error, ray.exceptions.RayTaskError):
                raise self._death(self.names[process], error) from error
            cause, name = getattr(error, "cause", error), self.names[process]
            # A process that ends takes down those that wait for it: name the one that began.
            if not isinstance(cause, EnvironmentFailed | NotFinite | OutOfBounds) and (dead := self._dead(name)):
                raise self._death(*dead) from error
            if not isinstance(cause, Exception):
                raise
            self.roll.note(self.names[process], "failed")
            raise cause from error

    def wait(self, references: list[Any]) -> list[Any]:
        """Those of some calls that have ended, perhaps none; where processes have no place yet, it is said for whom."""
        ready, _ = ray.wait(references, num_returns=1, timeout=1)
        if not ready and self._starting:
            names, seconds = self._waiting(self._starting)
            if names:
                self.placement.waits(", ".join(names), seconds)
        return ready

    def _waiting(self, those: dict[Any, tuple[float, Any]]) -> tuple[list[str], float]:
        """Who of those has no place yet, and for how many seconds the first of them has waited."""
        asked = {answer: process for process, (_, answer) in those.items()}
        if asked:
            for answer in ray.wait(list(asked), num_returns=len(asked), timeout=0)[0]:
                del those[asked[answer]]
        since = min((since for since, _ in those.values()), default=time.monotonic())
        return sorted(self.names[process] for process in those), time.monotonic() - since

    def _dead(self, waiting: str) -> tuple[str, Exception] | None:
        """One that is no more of those for whom a process waits; those that are busy are not waited for long.

        Nobody waits for actors or the evaluator; learners wait for each other, and hear of a death before Ray does.
        """
        alone = ("actor", EVALUATOR)
        others = {process: name for process, name in self.names.items() if not name.startswith(alone)}
        if waiting.startswith("actor"):
            others = {process: name for process, name in others.items() if not name.startswith("learner")}
        asked = {process.pid.remote(): name for process, name in others.items()}
        left, until = list(asked), time.monotonic() + 5
        while left:
            ready, left = ray.wait(left, num_returns=1, timeout=max(0.0, until - time.monotonic()))
            if not ready:
                break
            try:
                ray.get(ready)
            except DIED as error:
                return asked[ready[0]], error
        return None

    def _death(self, name: str, error: Exception) -> ProcessDied:
        self.roll.note(name, "died")
        cause = cause_of(error, self.logs / f"{name}.log")
        return ProcessDied(f"{name} died: {cause}; last words may be in {self.logs}", process=name, cause=cause)

    def _lasting(self, process: type, **options: Any) -> Any:
        """A class of processes that become the same again: calls under way are repeated."""
        same = {"max_restarts": RESTARTS, "max_task_retries": -1}
        return remote(**self.placement.here(), **same, **options)(process)

    def _has_place(self, process: Any) -> None:
        """It does not wait for one any more."""
        self._starting.pop(process, None)
        self._added.pop(process, None)

    def _named(self, name: str, process: Any) -> Any:
        self.names[process] = name
        self.lives[name] += 1
        if name.startswith(("actor", "learner")):
            # Asked before anything else: what comes next may take long where it has its place.
            self._starting[process] = time.monotonic(), process.pid.remote()
        return process
