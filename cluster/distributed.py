"""A run over Ray processes: the same turns as `Local`, taken by processes that wait for each other."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from actors.actor import Report
from actors.environments import EnvironmentFailed
from actors.episodes import Episode
from cluster import checkpoints
from cluster.assembly import streams_of, writer_name
from cluster.embedded import start_ray
from cluster.evaluator import Evaluator
from cluster.experiment import Experiment, Spaces
from cluster.faults import Faults
from cluster.histograms import Histograms, of_store
from cluster.limits import Limits
from cluster.placement import Placement
from cluster.ranks import Ranks
from cluster.roster import CHANNEL, EVALUATOR, Roster
from cluster.shard_handle import RayShard
from cluster.snapshots import Snapshots
from cluster.vitals import Vitals
from cluster.weights import RayWeights
from cluster.world import Advance, ProcessDied, store_metrics
from replay.opening import Places

AHEAD = 8
"""Calls to a shard that may be under way before their answer is needed, where actors may run ahead of learners."""

PATIENCE = 10.0
"""Seconds that processes are given to finish before they are ended, and actors to tell of what was learned from."""


class Distributed:
    """Actors, shards, learners and the weight channel, each in a Ray process.

    The driver (this object) owns all of them. It hands every actor its next block as soon as the last one is reported,
    and the learners their next step; they wait for each other, not for the driver. If the driver dies, Ray ends the
    others.

    Any of the others may die. Shards and the channel are started again by Ray. An actor is replaced: its shard says how
    many of its blocks it has, refuses whatever still comes of the dead one, and another makes the next block, from the
    snapshot that came with the one before it, or with new episodes where there is none. Learners are replaced all
    together: each keeps its state after every step in its machine's shared memory, they go on from the newest version
    that all have, and are given the same draws again, so nothing is lost. The evaluator is replaced, too, and its
    evaluation begun again. Where no learner's machine is left, or one process that others wait for dies again and
    again, `advance` raises.

    Args:
        experiment: checked.
        spaces: of its environment.
        places: of the store's files; on the driver's node.
        logs: folder for one log per process, in the run's folder.
        resume: checkpoint to continue from.
        say: hears who died and what is waited for; see `Placement`.
    """

    def __init__(
        self,
        experiment: Experiment,
        spaces: Spaces,
        *,
        places: Places,
        logs: Path,
        resume: Path | None = None,
        say: Callable[[str], object] = print,
    ) -> None:
        self.experiment, self.places, self.resume = experiment, places, resume
        self.faults, self.say = Faults(logs.parent, say), say
        placement = Placement(experiment.topology, say=say)
        self.roster = Roster(experiment, spaces, places=places, logs=logs, placement=placement)
        # In turns there is nothing to do before its turn.
        self.ahead = 0 if experiment.topology.max_version_lag == 0 and not experiment.store else AHEAD
        self.learners = Ranks(self.roster, self.faults, ahead=self.ahead)
        self.evaluator = Evaluator(self.roster, self.faults)
        self.collecting: dict[Any, int] = {}
        self.blocks = [0] * experiment.topology.actors  # that each actor is at
        self.reports: list[Report] = []  # that no `advance` has told of

    def __enter__(self) -> "Distributed":
        self.owns_ray = not ray.is_initialized()
        start_ray(self.experiment.topology.address)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        """All processes come up side by side; each imports torch, which is what takes the time."""
        topology, roster = self.experiment.topology, self.roster
        roster.placement.check()
        # Learners who read ahead are a step behind what they read.
        self.shards = [roster.shard(index, behind=1 if self.ahead else 0) for index in range(topology.shards)]
        self.channel = roster.channel()
        self.learners.begin(self.channel, self.shards)
        state = None if self.resume is None else checkpoints.read(self.resume)
        self.began = 0 if state is None else state[1]["version"]
        found = {} if self.resume is None else checkpoints.snapshots(self.resume)
        self.snapshots = Snapshots(found, self.began, self.say)
        self.actors = [
            self._new_actor(index, self.began, life=0, snapshot=found.get(index)) for index in range(topology.actors)
        ]
        starting = {actor.start.remote(): index for index, actor in enumerate(self.actors)}
        for index in range(topology.actors):
            self._collect(index)
        self.faults.version = self.began
        self.learners.start(state, self.resume)
        while starting:
            for reference in roster.wait(list(starting)):
                index = starting.pop(reference)
                if not self._answered(index, reference):
                    starting[self.actors[index].start.remote()] = index

    def _answered(self, index: int, reference: Any) -> bool:
        """Whether an actor made its environments; another takes the place of one that died."""
        try:
            self.roster.result(reference, self.actors[index])
        except ProcessDied as death:
            self._replace_actor(index, death)
            return False
        return True

    def _new_actor(self, index: int, start_block: int, *, life: int, snapshot: bytes | None) -> Any:
        self.blocks[index] = start_block
        shard = index % len(self.shards)
        handle = RayShard(self.shards[shard], f"shard-{shard}", ahead=self.ahead)
        weights = RayWeights(self.channel)
        same: dict[str, Any] = {"start_block": start_block, "life": life, "snapshot": snapshot}
        return self.roster.actor(index, weights=weights, shard=handle, **same)

    def _collect(self, index: int) -> None:
        self.collecting[self.actors[index].collect.remote()] = index

    def advance(self) -> Advance:
        """One learner step; meanwhile actors are given new blocks as they report old ones."""

        def meanwhile(references: list[Any]) -> list[Any]:
            ready = self.roster.wait([*self.collecting, *references])
            self.evaluator.make_room()
            mine = [reference for reference in ready if reference in self.collecting]
            for reference in mine:
                self._take_block(reference)
            return [reference for reference in ready if reference not in mine]

        metrics, steps, version = self.learners.step(meanwhile)
        self.faults.moved(version)
        self.snapshots.forget(version)
        reports, self.reports = self.reports, []
        for shard in self.shards:
            metrics |= store_metrics(self.roster.result(shard.statistics.remote(), shard), metrics)
        return Advance(metrics | {"health/deaths": float(self.faults.count)}, reports, steps, version)

    def _take_block(self, reference: Any) -> None:
        """Take an actor's report and give it the next block; if it died, another has to begin that block again."""
        index = self.collecting.pop(reference)
        name = f"actor-{index}"
        try:
            report = self.roster.result(reference, self.actors[index])
        except (EnvironmentFailed, ProcessDied) as error:
            self._replace_actor(index, error)
            return
        self.faults.finished(name)
        self.blocks[index] = report.block + 1
        self.snapshots.add(index, report)
        self.reports.append(report)
        self._collect(index)

    def _replace_actor(self, index: int, error: Exception) -> None:
        """Let another go on with the first block that the shard does not have.

        Raises:
            Exception: the error, where it is not the actor that died, or it died too often.
        """
        name = f"actor-{index}"
        if getattr(error, "process", name) != name:
            raise error
        if isinstance(error, EnvironmentFailed):
            self.snapshots.spoil(index)
        self.faults.died(name, error)
        self.collecting = {reference: other for reference, other in self.collecting.items() if other != index}
        self.roster.dismiss(self.actors[index])
        shard = self.shards[index % len(self.shards)]
        life = self.roster.lives[name]
        former, writer = (writer_name(index, self.places, number) for number in (life - 1, life))
        blocks = self.roster.result(shard.fence.remote(streams_of(self.experiment, index), writer, former), shard)
        block = self.began + blocks
        self.actors[index] = self._new_actor(index, block, life=life, snapshot=self.snapshots.heirs(index, block))
        self._collect(index)

    def save(self, folder: Path) -> None:
        """Write rank 0's checkpoint, with all ranks' random numbers and the actors' snapshots."""
        tensors, values = self.learners.state()
        self._hear_of_blocks(values["version"])
        checkpoints.write(folder, tensors, values, self.snapshots.at(values["version"]))

    def _hear_of_blocks(self, version: int) -> None:
        """Wait for what actors tell of the blocks that a version was learned from: snapshots come after commits."""
        # Where nothing is read once, learners may be ahead of actors.
        reads_blocks = any(table.reads_once for table in self.experiment.tables.values())
        until = time.monotonic() + PATIENCE
        while reads_blocks and min(self.blocks) < version and time.monotonic() < until:
            for reference in self.roster.wait(list(self.collecting)):
                self._take_block(reference)

    def evaluate(self, checkpoint: Path) -> None:
        """Ask the evaluator, in its own process."""
        self.evaluator.begin(checkpoint)

    def evaluated(self) -> list[Episode] | None:
        """What the evaluator has played."""
        return self.evaluator.ended()

    def limit(self, limits: Limits) -> None:
        """Every shard follows them."""
        for shard in self.shards:
            for table, values in limits.items():
                self.roster.result(shard.limit.remote(table, values), shard)

    def histograms(self) -> Histograms:
        """All shards' added up, and the first learner's."""
        stored = [self.roster.result(shard.histograms.remote(), shard) for shard in self.shards]
        return of_store(stored) | self.learners.histograms()

    def vitals(self) -> list[Vitals]:
        """Those of all processes, as they last told them; another thread may ask."""
        return self.roster.roll.call()

    def culprit(self) -> str:
        """The process that ended by itself before any other."""
        return self.roster.roll.first

    def forget(self, before: int) -> None:
        """Let the store's journals forget what came before the oldest checkpoint; nobody waits for it."""
        for shard in self.shards:
            shard.forget.remote(before)

    def rescue(self, folder: Path) -> bool:
        """Write rank 0's checkpoint as soon as it no longer waits for rows, unless it failed half-way."""
        self._send_home()
        state = self.learners.rescued(PATIENCE)
        if state is not None:
            checkpoints.write(folder, *state, self.snapshots.at(int(state[1]["version"])))
        return state is not None

    def __exit__(self, *error: object) -> None:
        """End all in order: those who wait are sent home, environments and files closed, then Ray itself."""
        self.roster.roll.end()
        self._send_home()
        self._quietly(
            [process.close.remote() for process, name in self.names.items() if name not in (CHANNEL, EVALUATOR)]
        )
        for process in self.names:
            ray.kill(process)
        self.roster.placement.release()
        if self.owns_ray:
            ray.shutdown()

    @property
    def names(self) -> dict[Any, str]:
        """Of the processes, by handle."""
        return self.roster.names

    def _send_home(self) -> None:
        """Let go those that wait for rows, room or weights, and let them finish what they do."""
        waited_for = [process for process, name in self.names.items() if name.startswith((CHANNEL, "shard"))]
        self._quietly([process.stop.remote() for process in waited_for])
        self._quietly([*self.collecting, *self.learners.learning])

    def _quietly(self, references: list[Any]) -> None:
        """Wait a while for calls whose failure changes nothing any more: their processes are ended next."""
        if references:
            ray.wait(references, num_returns=len(references), timeout=PATIENCE)
