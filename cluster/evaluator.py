"""A distributed run's evaluator as its driver has it: who is asked for evaluations, and replaced."""

from pathlib import Path
from typing import Any

import ray

from actors.episodes import Episode
from cluster.evaluation import weights_of
from cluster.faults import MOST, Faults, cause_of
from cluster.roster import EVALUATOR, Roster
from cluster.world import ProcessDied


class Evaluator:
    """One process, started with the first evaluation, for which nobody ever waits.

    It is sent the weights, so it need not see the run's folder. If it dies, another makes that evaluation again. It
    comes after all others: an actor that waits for room is given its place.

    Args:
        roster: starts it.
        faults: hears of deaths.
    """

    def __init__(self, roster: Roster, faults: Faults) -> None:
        self._roster, self._faults = roster, faults
        self._checkpoint: Path | None = None
        self._process: Any = None
        self._playing: Any = None
        self._deaths = 0  # of this evaluation

    def begin(self, checkpoint: Path) -> None:
        """Let a checkpoint's weights be played, instead of any other's, as soon as nobody lacks room."""
        self._checkpoint, self._playing, self._deaths = checkpoint, None, 0

    def ended(self) -> list[Episode] | None:
        """The episodes, as soon as they are played.

        Raises:
            ProcessDied: that was tried `MOST` times, or processes die as fast as would end the run if they were others.
        """
        if self._playing is None:
            if self._roster.lacks_room(added=False):
                return None
            self._ask()
        ready, _ = ray.wait([self._playing], timeout=0)
        if not ready:
            return None
        try:
            played = ray.get(self._playing)
        except ray.exceptions.RayError as error:
            self._bury(error)
            return None
        self._faults.finished(EVALUATOR)
        self._checkpoint = None
        return played

    def make_room(self) -> None:
        """Give up the process where others lack the room that it has, or waits for; another begins later.

        An evaluation that is under way is only given up for those without whom the run stands still.
        """
        if self._process is not None and self._roster.lacks_room(added=self._checkpoint is None):
            self._dismiss()

    def _ask(self) -> None:
        assert self._checkpoint is not None
        if self._process is None:
            self._process = self._roster.evaluator()
        self._playing = self._process.play.remote(*weights_of(self._checkpoint))

    def _bury(self, error: Exception) -> None:
        """Dismiss the dead, or the one that raised.

        Raises:
            ProcessDied: this happened too often.
        """
        cause = cause_of(error, self._roster.logs / f"{EVALUATOR}.log")
        death = ProcessDied(f"{EVALUATOR} died: {cause}", process=EVALUATOR, cause=cause)
        self._dismiss()
        self._deaths += 1
        self._faults.died(EVALUATOR, death)
        if self._deaths == MOST:
            raise death

    def _dismiss(self) -> None:
        self._roster.dismiss(self._process)
        self._process = self._playing = None
