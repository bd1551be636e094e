"""A change of how many actors a run has while it trains, up to the block with which the new ones begin."""

import time
from collections.abc import Callable
from typing import Any

import ray

from cluster.experiment import Experiment
from cluster.faults import MOST
from cluster.placement import SAY_AFTER
from cluster.roster import Roster
from cluster.scaling import NotPossible


class Change:
    """Actors that are to come or to go.

    New processes are started beside those that play. Only when all of them are ready is it decided with which block the
    new layout begins: the actors of the old one play all blocks before it, so that every stream has equally many. One
    that dies meanwhile is replaced in the old layout. Then the streams are given to new writers, in the same processes
    as far as those stay, so that there need be room for what is added only. All change, or none.

    Args:
        experiment: with as many actors as are wanted.
        before: actors so far.
        roster: of the run.
        begin: starts the process of an actor of an experiment.

    Attributes:
        until: the first block of the new layout; None: it is not decided yet.
        done: actors of the old layout that have played all blocks before it.
    """

    def __init__(
        self, experiment: Experiment, before: int, roster: Roster, begin: Callable[[int, Experiment], Any]
    ) -> None:
        self.experiment, self._before, self._roster, self._begin = experiment, before, roster, begin
        self.until: int | None = None
        self.done: set[int] = set()
        self._since, self._failures = time.monotonic(), 0
        self.fresh: dict[int, Any] = {}
        self._warming: dict[Any, int] = {}
        for index in range(before, self.actors):
            self._warm(index)

    @property
    def actors(self) -> int:
        """How many are wanted."""
        return self.experiment.topology.actors

    def _warm(self, index: int) -> None:
        self.fresh[index] = process = self._begin(index, self.experiment)
        self._roster.not_awaited(process)
        self._warming[process.warm.remote()] = index

    def ready(self) -> bool:
        """Whether all new processes have answered; does not wait.

        Raises:
            NotPossible: they fail again and again.
        """
        if self._warming:
            for reference in ray.wait(list(self._warming), num_returns=len(self._warming), timeout=0)[0]:
                self._heard(reference, self._warming.pop(reference))
        return not self._warming

    def _heard(self, reference: Any, index: int) -> None:
        try:
            self._roster.result(reference, self.fresh[index])
        except Exception as error:
            self._failures += 1
            if self._failures == MOST:
                raise NotPossible(f"new actors failed {MOST} times, at last actor-{index}: {error}") from error
            self._roster.dismiss(self.fresh[index])
            self._warm(index)

    def why(self) -> str:
        """What it waits for."""
        if self.until is not None:
            return f"the {self._before} actors finish the blocks before block {self.until}"
        names = ", ".join(f"actor-{index}" for index in sorted(self._warming.values()))
        late = time.monotonic() - self._since > SAY_AFTER
        return (late and self._roster.placement.lacking(names)) or f"{names} start" * bool(names)

    def withdraw(self) -> None:
        """Let go the new processes: the old layout stays."""
        for process in self.fresh.values():
            self._roster.release(process)
