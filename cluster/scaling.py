"""More or fewer actors while a run goes on: what somebody wishes, and what the run says to it, a file each.

`contrail scale-actors` writes the wish, the run's loop looks at it between learner steps. Both files stay: a run that
is resumed goes on with as many actors as it had, and with a wish that was still to come true.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

from cluster.experiment import Experiment, ExperimentError
from cluster.run_folder import RunFolder
from cluster.wishes import Answer, Wish, Wishes

EVERY = 2.0
"""Seconds between two answers about a wish that takes its time."""
LATE = 20.0
"""Seconds that a wish for fewer actors waits for a learner step to end, while others wait for room."""


class NotPossible(RuntimeError):
    """New actors could not be started: the run stays as it is."""


@runtime_checkable
class Scalable(Protocol):
    """A world whose actors can come and go."""

    def scale(self, actors: int) -> int:
        """How many actors there are; they are made so many as soon as that can be. Called between steps until then.

        Raises:
            NotPossible: new actors cannot be started; all stays as it is.
        """
        ...

    def scaling(self) -> str:
        """What it waits for."""
        ...


def with_actors(experiment: Experiment, actors: int) -> Experiment:
    """The same experiment with another number of actors.

    Raises:
        ExperimentError: streams or shards do not divide; names the numbers that are possible.
    """
    envs, shards = experiment.envs, experiment.topology.shards
    possible = [number for number in range(shards, envs + 1, shards) if envs % number == 0]
    if actors not in possible:
        raise ExperimentError(
            f"{actors} actors cannot share {envs} environments and {shards} shards evenly: "
            f"wanted one of {', '.join(map(str, possible))}"
        )
    return replace(experiment, topology=replace(experiment.topology, actors=actors))


class Scaling:
    """What a run does about wishes for actors.

    Args:
        folder: of the run.
        actors: that it begins with.
        say: hears when a wish comes true, or cannot.
    """

    def __init__(self, folder: RunFolder, actors: int, say: Callable[[str], object]) -> None:
        self._wishes, self._actors, self._say = Wishes(folder), actors, say
        self._seen = 0
        self._pending: Wish | None = None
        self._steps = -1  # that have ended since the start
        self._looked = time.monotonic()
        self._told = 0.0

    def look(self, world: object) -> None:
        """Between two steps: bring the world nearer to what is wished, and say how far it is."""
        self._steps, self._looked = self._steps + 1, time.monotonic()
        if self._steps == 0 and isinstance(world, Scalable) and self._wishes.answer() is None:
            self._wishes.reply(Answer(self._actors, 0.0, "done"))  # how many there are is resolved on this machine
        wish = self._newest()
        if wish is None:
            return
        if not isinstance(world, Scalable):
            self._settle(wish, "refused", "all is in one process")
            return
        try:
            self._actors = world.scale(wish.actors)
        except (NotPossible, ExperimentError) as error:
            self._settle(wish, "refused", str(error))
            return
        waits = world.scaling()
        if self._actors == wish.actors and not waits:  # else the change to another number cannot be stopped any more
            self._settle(wish, "done")
        elif time.monotonic() - self._told > EVERY:
            self._told = time.monotonic()
            self._wishes.reply(Answer(self._actors, wish.asked, "waits", waits))

    def fewer(self) -> bool:
        """Whether fewer actors are wished for, and no step ends after which that could be done.

        A step must have ended since the start, so that going on from there brings the run further.
        """
        wish = self._newest()
        if wish is None or wish.actors >= self._actors:
            return False
        return self._steps > 0 and min(time.time() - wish.asked, time.monotonic() - self._looked) > LATE

    def _newest(self) -> Wish | None:
        """The wish that is pending; the files are read when somebody wished anew."""
        written = self._wishes.written()
        if written != self._seen:
            self._seen, self._pending = written, self._wishes.pending()
        return self._pending

    def _settle(self, wish: Wish, state: Literal["done", "refused"], why: str = "") -> None:
        self._pending = None
        self._wishes.reply(Answer(self._actors, wish.asked, state, why))
        self._say(f"the run has {self._actors} actors" + f", not {wish.actors}: {why}" * bool(why))


def laid_out(experiment: Experiment, folder: RunFolder) -> Experiment:
    """An experiment with as many actors as its run had last, or fewer, where those are wished for.

    More come later: nobody should wait for room that is not needed yet.

    Raises:
        ExperimentError: it cannot have so many any more.
    """
    wishes = Wishes(folder)
    answer, wish = wishes.answer(), wishes.pending()
    actors = answer.actors if answer is not None else experiment.topology.actors
    actors = min(actors, wish.actors) if wish is not None else actors
    return experiment if actors == experiment.topology.actors else with_actors(experiment, actors)
