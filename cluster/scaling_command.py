"""`contrail scale-actors`: wish for more or fewer actors of a run that goes on, and wait until it has them."""

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from cluster.condition import Condition
from cluster.experiment import Experiment, ExperimentError
from cluster.parsing import recorded
from cluster.run_folder import RunFolder, RunFolderError
from cluster.scaling import laid_out, with_actors
from cluster.status import look
from cluster.wishes import Wish, Wishes


@dataclass(frozen=True)
class ScalingActors:
    """Give a run more or fewer actors while it trains, and wait until it has them.

    The environments stay as many as they were, and are shared anew. Ctrl-C ends the waiting, not the wish; to take it
    back wish for the number that the run has. Exit code 1 if it did not come true.

    Attributes:
        run: folder of the run.
        actors: how many it shall have.
    """

    run: tyro.conf.Positional[Path]
    actors: tyro.conf.Positional[int]


def command_scale_actors(arguments: list[str], seconds: float = 0.5) -> int:
    """contrail scale-actors RUN N; looks every so many seconds."""
    options = tyro.cli(ScalingActors, args=arguments, prog="contrail scale-actors")
    folder = RunFolder.open(options.run)
    _, experiment, _ = recorded(folder)
    _check(experiment, options.actors, folder)
    condition, alive = look(folder.path)
    have = laid_out(experiment, folder).topology.actors
    if not _trains(condition, alive=alive):
        raise RunFolderError(
            f"{folder.path} is not training: a run has its actors scaled while it goes on; "
            f"contrail resume would begin with {have}"
        )
    wishes = Wishes(folder)
    if wishes.pending() is None and have == options.actors:
        print(f"{folder.path} has {have} actors already")
        return 0
    return _await(wishes.ask(options.actors), wishes, folder.path, seconds)


def _check(experiment: Experiment, actors: int, folder: RunFolder) -> None:
    """Raise an ExperimentError where a run can never have so many actors."""
    if experiment.store:
        raise ExperimentError(f"{folder.path} has no actors: it learns from the rows of {experiment.store}")
    if experiment.topology.local:
        raise ExperimentError(f"{folder.path} is all in one process (--topology.local): start one without that flag")
    with_actors(experiment, actors)


def _trains(condition: Condition, *, alive: bool) -> bool:
    return alive and condition.phase in ("starting", "training")


def _await(wish: Wish, wishes: Wishes, run: Path, seconds: float) -> int:
    """Wait for the run's answer, and print what it says on the way; the exit code."""
    said = ""
    while True:
        condition, alive = look(run)
        answer = wishes.answer()  # after that look: what a run said last is there
        if answer is not None and answer.asked == wish.asked:
            if answer.state == "done":
                print(f"{run} has {answer.actors} actors")
                return 0
            if answer.why and answer.why != said:
                said = answer.why
                print(said, flush=True)
            if answer.state == "refused":
                print(f"{run} keeps its {answer.actors} actors")
                return 1
        elif (newer := wishes.wish()) is not None and newer.asked != wish.asked:
            print(f"meanwhile somebody wished for {newer.actors} actors of {run}")
            return 1
        if not _trains(condition, alive=alive):
            print(f"{run} came to an end before it had {wish.actors} actors")
            return 1
        time.sleep(seconds)
