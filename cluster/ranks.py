"""The learners of a run as one: they step together, and when one dies others take the place of all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray

from cluster.faults import Faults
from cluster.histograms import Histograms
from cluster.processes import State
from cluster.roster import Roster
from cluster.shard_handle import RayShard
from cluster.weights import RayWeights
from cluster.world import ProcessDied
from learners.learner import NOT_KEPT

Result = TypeVar("Result")
Stepped = tuple[dict[str, float], int, int]
"""Metrics, env steps trained on, and the version."""


class Ranks:
    """The learner processes.

    Each keeps its state after every step in its machine's shared memory. When one dies, all are ended, and new ones go
    on from the newest version that all have; the shards give them the same draws again. So nothing is lost. Only with
    the last machine that kept a state it is.

    Args:
        roster: starts them.
        faults: hears of deaths.
        ahead: see `RayShard`.

    Attributes:
        learning: the steps under way.
    """

    def __init__(self, roster: Roster, faults: Faults, *, ahead: int) -> None:
        self._roster, self._faults, self._ahead = roster, faults, ahead
        self._count = roster.experiment.topology.learners
        self._processes: list[Any] = []
        self.learning: dict[Any, Any] = {}

    def begin(self, channel: Any, shards: list[Any]) -> None:
        """Start the processes, who are to publish in a channel and read from shards."""
        self._channel, self._shards = channel, shards
        self._processes = self._new()

    def start(self, state: State | None, origin: Path | None) -> None:
        """Let them begin, or go on from a checkpoint.

        Args:
            state: of the checkpoint; None: from the beginning.
            origin: of the state, for messages.
        """
        given = [None if state is None else ray.put(state)] * self._count
        begun = False
        while not begun:
            try:
                self._processes = self._processes or self._new()
                self._join(given, origin)
                begun = True
            except ProcessDied as death:
                self._bury(death)

    def _new(self) -> list[Any]:
        return [self._roster.learner(rank) for rank in range(self._count)]

    def _join(self, states: list[Any], origin: Path | None = None) -> None:
        """Let them join each other and publish; each from a state, a version that it kept, or from the beginning."""
        life = self._roster.lives["learner-0"]
        shards = [
            RayShard(shard, f"shard-{index}", ahead=self._ahead, life=life) for index, shard in enumerate(self._shards)
        ]
        given = {"shards": shards, "weights": RayWeights(self._channel, life=life), "origin": origin}
        first = self._processes[0]
        address = self._roster.result(first.address.remote(), first)
        started = {
            learner.start.remote(address, state=state, **given): learner
            for learner, state in zip(self._processes, states, strict=True)
        }
        left = dict(started)
        while left:
            for ready in self._roster.wait(list(left)):
                self._roster.result(ready, left.pop(ready))

    def step(self, meanwhile: Callable[[list[Any]], list[Any]]) -> Stepped:
        """One step of all.

        Args:
            meanwhile: takes references to wait for, waits for one of them or something else, gives those that came.
        """
        return self._surely(lambda: self._stepped(meanwhile))

    def _stepped(self, meanwhile: Callable[[list[Any]], list[Any]]) -> Stepped:
        self.learning = {learner.step.remote(): learner for learner in self._processes}
        results: dict[Any, Stepped] = {}
        while self.learning:
            for reference in meanwhile(list(self.learning)):
                learner = self.learning.pop(reference)
                results[learner] = self._roster.result(reference, learner)
        for rank in range(self._count):
            self._faults.finished(f"learner-{rank}")
        metrics, steps, version = results[self._processes[0]]  # who published
        metrics |= _mean_seconds([found for found, _, _ in results.values()])
        if NOT_KEPT in metrics:  # of any of them
            metrics |= {NOT_KEPT: max(found[NOT_KEPT] for found, _, _ in results.values())}
        return metrics, steps, version

    def state(self) -> State:
        """Rank 0's, with all ranks' random numbers."""
        return self._surely(self._state)

    def _state(self) -> State:
        first, *others = self._processes
        asked = [(learner.random.remote(), learner) for learner in others]
        tensors, values = self._roster.result(first.state.remote(), first)
        for reference, learner in asked:
            tensors |= self._roster.result(reference, learner)
        return tensors, values

    def histograms(self) -> Histograms:
        """Of what the first has read last."""
        return self._surely(lambda: self._roster.result(self._processes[0].histograms.remote(), self._processes[0]))

    def rescued(self, patience: float) -> State | None:
        """Rank 0's state, as soon as it no longer waits for rows, unless a step failed half-way."""
        if not self._processes:
            return self._left_behind()
        asked = self._processes[0].rescued.remote()
        ready, _ = ray.wait([asked], timeout=patience)
        return self._roster.result(asked, self._processes[0]) if ready else None

    def _left_behind(self) -> State | None:
        """What rank 0 kept, where nobody is to take its place any more."""
        heir = self._roster.learner(0)
        versions = self._kept_by([heir])[0]
        return self._roster.result(heir.handed_over.remote(max(versions)), heir) if versions else None

    def _surely(self, call: Callable[[], Result]) -> Result:
        """What a call gives, of new learners if these die meanwhile."""
        while True:
            try:
                if not self._processes:
                    self._renew()
                return call()
            except ProcessDied as death:
                self._bury(death)

    def _bury(self, death: ProcessDied) -> None:
        """End all of them, so that others can take their place.

        Raises:
            ProcessDied: it was none of them that died, or it died too often.
        """
        if not death.process.startswith("learner"):
            raise death
        for learner in self._processes:
            self._roster.dismiss(learner)
        self._processes, self.learning = [], {}
        self._faults.died(death.process, death)

    def _renew(self) -> None:
        """Let others go on from what the last ones kept: the newest version that all of them have, if there is one."""
        self._processes = self._new()
        kept = self._kept_by(self._processes)
        there = [versions for versions in kept if versions]
        if not there:
            raise ProcessDied("all learners died, and with them what they kept of their state", begin_again=True)
        version = max(set.intersection(*there) or set.union(*there))
        handed = None
        if any(version not in versions for versions in kept):
            holder = next(rank for rank, versions in enumerate(kept) if version in versions)
            handed = self._processes[holder].handed_over.remote(version)
        self._join([version if version in versions else handed for versions in kept])

    def _kept_by(self, processes: list[Any]) -> list[set[int]]:
        """The versions that each finds on its machine, but for those of a past that others have gone on from."""
        asked = [(learner.kept.remote(), learner) for learner in processes]
        found = [self._roster.result(reference, learner) for reference, learner in asked]
        return [{version for version in versions if version >= self._faults.version} for versions in found]


def _mean_seconds(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Where the mean rank's time went."""
    tags = [tag for tag in metrics[0] if tag.startswith("time/")]
    return {tag: sum(found[tag] for found in metrics) / len(metrics) for tag in tags}
