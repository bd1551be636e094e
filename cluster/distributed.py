"""A run over Ray processes: the same turns as `Local`, taken by processes that wait for each other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from actors.episodes import Episode
from cluster import checkpoints
from cluster.busy import Cores
from cluster.embedded import end_ray, start_ray
from cluster.evaluator import Evaluator
from cluster.experiment import Experiment, Spaces
from cluster.faults import Faults
from cluster.histograms import Histograms, of_store
from cluster.kept import forget
from cluster.limits import Limits
from cluster.placement import Placement
from cluster.ranks import Ranks
from cluster.roster import CHANNEL, Roster
from cluster.snapshots import Snapshots
from cluster.troupe import Troupe
from cluster.vitals import Vitals
from cluster.world import Advance, store_metrics
from replay.opening import Places

AHEAD = 8
"""Calls to a shard that may be under way before their answer is needed, where actors may run ahead of learners."""

PATIENCE = 10.0
"""Seconds that processes are given to finish before they are ended."""


class Distributed:
    """Actors, shards, learners and the weight channel, each in a Ray process.

    The driver (this object) owns all of them. It hands every actor its next block as soon as the last one is reported,
    and the learners their next step; they wait for each other, not for the driver. If the driver dies, Ray ends the
    others.

    Any of the others may die. Shards and the channel are started again by Ray. An actor is replaced, see `Troupe`.
    Learners are replaced all together: each keeps its state after every step in its machine's shared memory, they go on
    from the newest version that all have, and are given the same draws again, so nothing is lost. The evaluator is
    replaced, too, and its evaluation begun again. Where no learner's machine is left, or one process that others wait
    for dies again and again, `advance` raises.

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
        self.actors = Troupe(self.roster, self.faults, ahead=self.ahead)
        self.cores = None if experiment.topology.address else Cores()

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
        version = 0 if state is None else state[1]["version"]
        found = {} if self.resume is None else checkpoints.snapshots(self.resume)
        self.faults.version = version
        self.actors.begin(self.channel, self.shards, Snapshots(found, version, self.say), version)
        self.learners.start(state, self.resume)
        self.actors.answered()

    def advance(self) -> Advance:
        """One learner step; meanwhile actors are given new blocks as they report old ones."""

        def meanwhile(references: list[Any]) -> list[Any]:
            ready = self.roster.wait([*self.actors.playing, *references])
            self.evaluator.make_room()
            mine = [reference for reference in ready if reference in self.actors.playing]
            for reference in mine:
                self.actors.hear(reference)
            return [reference for reference in ready if reference not in mine]

        metrics, steps, version = self.learners.step(meanwhile)
        self.faults.moved(version)
        self.actors.snapshots.forget(version)
        asked = [(shard, shard.statistics.remote(), shard.load.remote(version)) for shard in self.shards]
        loads = []
        for shard, statistics, load in asked:
            metrics |= store_metrics(self.roster.result(statistics, shard), metrics)
            loads.append(self.roster.result(load, shard))
        metrics |= self._bottleneck(loads)
        health = {"health/deaths": float(self.faults.count), "health/actors": float(len(self.actors))}
        return Advance(metrics | health, self.actors.news(), steps, version)

    def _bottleneck(self, loads: list[tuple[float, float | None]]) -> dict[str, float]:
        """Tags of how busy the busiest shard is, how full the emptiest, and of this machine where all is on it."""
        busy, queued = zip(*loads, strict=True)
        tags = {"shards_busy": max(busy), "cores_busy": self.cores and self.cores.share()}
        tags["queue"] = min((draws for draws in queued if draws is not None), default=None)
        return {f"bottleneck/{name}": value for name, value in tags.items() if value is not None}

    def scale(self, actors: int) -> int:
        """See `Troupe.scale`."""
        return self.actors.scale(actors)

    def scaling(self) -> str:
        """See `Troupe.scaling`."""
        return self.actors.scaling()

    def save(self, folder: Path) -> None:
        """Write rank 0's checkpoint, with all ranks' random numbers and the actors' snapshots."""
        tensors, values = self.learners.state()
        self.actors.hear_of_blocks(values["version"])
        checkpoints.write(folder, tensors, values, self.actors.snapshots.at(values["version"]))

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
            checkpoints.write(folder, *state, self.actors.snapshots.at(int(state[1]["version"])))
        return state is not None

    def __exit__(self, *error: object) -> None:
        """End all in order: those who wait are sent home, environments and files closed, then Ray itself."""
        self.roster.roll.end()
        self.actors.withdraw()
        self._send_home()
        # Actors first: a shard that is closed would take a late commit for a new writer's, and keep its files.
        for these in ("actor", ("learner", "shard")):
            self._quietly([process.close.remote() for process, name in self.names.items() if name.startswith(these)])
        for process in self.names:
            ray.kill(process)
        # A learner that was replaced on another machine left there what it had kept.
        others = self.roster.placement.elsewhere()
        self._quietly([ray.remote(max_retries=0, **place)(forget).remote(self.places.live) for place in others])
        self.roster.placement.release()
        if self.owns_ray:
            end_ray()

    @property
    def names(self) -> dict[Any, str]:
        """Of the processes, by handle."""
        return self.roster.names

    def _send_home(self) -> None:
        """Let go those that wait for rows, room or weights, and let them finish what they do."""
        waited_for = [process for process, name in self.names.items() if name.startswith((CHANNEL, "shard"))]
        self._quietly([process.stop.remote() for process in waited_for])
        self._quietly([*self.actors.playing, *self.learners.learning])

    def _quietly(self, references: list[Any]) -> None:
        """Wait a while for calls whose failure changes nothing any more: their processes are ended next."""
        if references:
            ray.wait(references, num_returns=len(references), timeout=PATIENCE)
