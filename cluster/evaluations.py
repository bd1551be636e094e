"""Evaluations of a run while it trains, and which of its checkpoints played best."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from actors.episodes import Episode
from cluster.evaluation import describe_evaluation, evaluate, noted
from cluster.experiment import Experiment, ExperimentError, at_least
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from cluster.standing import Standing
from cluster.stop import StopRequest
from cluster.whole_file import full_disk_told
from cluster.world import World

MEAN = "eval/mean_reward"


def check_evaluations(experiment: Experiment, every: int) -> None:
    """Raise an ExperimentError where there is nothing to be played, or no pace to play at."""
    at_least("--run.evaluate-every", every, 0)
    if every and not experiment.evaluation_episodes:
        raise ExperimentError("--run.evaluate-every, but the experiment's evaluation_episodes is 0: set one of them")


class Evaluations:
    """A run's greedy episodes: every so many env steps while it trains, and at its end.

    An evaluation is of one checkpoint, written when it is due and kept until it has ended. There is one at a time: what
    falls due meanwhile is made when the one before has ended, once, with the weights of then. One that had not ended
    when the run did is made again, by the run that is resumed or before the evaluation at the end. What cannot be
    played in the world's way is given up and told; training goes on.

    The checkpoint with the highest mean return, that of the end among them, is kept beside the newest ones.

    Args:
        experiment: of the run.
        folder: of the run.
        every: env steps; 0: only at the end.
        write: takes numbers at so many env steps: those of the weights, which training has left behind by then.
        say: hears of every evaluation.
        stop: a request interrupts what is played in this process.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        every: int,
        *,
        write: Callable[[int, Mapping[str, float]], None],
        say: Callable[[str], None],
        stop: StopRequest,
    ) -> None:
        self._experiment, self._folder, self._every = experiment, folder, every
        self._write, self._say, self._stop = write, say, stop
        self._standing = Standing.read(folder)
        self._begun = False
        if (path := self._unfinished) and (values := self._written(path)):  # it died before it could note that
            self._close(path, values)

    @property
    def spared(self) -> set[str]:
        """Names of the checkpoints that are needed, however old."""
        standing = self._standing
        return {standing.best} | (set() if standing.ended else {standing.last})

    def due(self, steps: int) -> bool:
        """Whether a checkpoint of now is to be evaluated; that of the end is anyway."""
        if not self._every or not self._standing.ended or steps >= self._experiment.steps:
            return False
        return steps // self._every > int(self._standing.last or 0) // self._every

    def begin(self, checkpoint: Path) -> None:
        """From now on it is to be evaluated."""
        self._set(replace(self._standing, last=checkpoint.name, ended=False))

    def look(self, world: World) -> None:
        """Let the world begin what is to be evaluated, and take what it has played."""
        checkpoint = self._unfinished
        if checkpoint is None or self._stop.signal:
            return
        try:
            if not self._begun:
                world.evaluate(checkpoint)
                self._begun = True
            with self._stop.at_once():
                played = world.evaluated()
        except KeyboardInterrupt:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, training can do without it
            self._give_up(checkpoint, error)
            return
        if played is not None:
            self._take(checkpoint, played)

    def conclude(self) -> None:
        """What has not ended and then the newest checkpoint, played by this process.

        Raises:
            Exception: the newest cannot be played.
        """
        newest = self._folder.latest()
        for checkpoint in dict.fromkeys([*filter(None, [self._unfinished]), newest]):
            self._say(f"playing {self._experiment.evaluation_episodes} greedy episodes ...")
            try:
                values = evaluate(self._experiment, self._folder, checkpoint)
            except Exception as error:
                if checkpoint == newest:
                    raise
                self._give_up(checkpoint, error)
            else:
                self._tell(checkpoint, values)

    @property
    def _unfinished(self) -> Path | None:
        return None if self._standing.ended else self._folder.path_for(int(self._standing.last))

    def _take(self, checkpoint: Path, played: list[Episode]) -> None:
        self._tell(checkpoint, noted(self._folder, checkpoint, played))

    def _tell(self, checkpoint: Path, values: dict[str, float]) -> None:
        steps = int(checkpoint.name)
        self._write(steps, values)
        at = "" if steps >= self._experiment.steps else f"{steps:,} env steps, "
        self._say(at + describe_evaluation(values, self._experiment))
        self._close(checkpoint, values)

    def _give_up(self, checkpoint: Path, error: Exception) -> None:
        self._say(f"the evaluation of {int(checkpoint.name):,} env steps is given up: {error}")
        self._close(checkpoint, {})

    def _close(self, checkpoint: Path, values: Mapping[str, float]) -> None:
        """An evaluation has ended, without numbers if it was given up."""
        standing, mean = replace(self._standing, last=checkpoint.name, ended=True), values.get(MEAN, math.nan)
        if math.isfinite(mean) and (not standing.best or mean > standing.mean_return):
            standing = replace(standing, best=checkpoint.name, mean_return=float(mean))
        self._set(standing)

    def _set(self, standing: Standing) -> None:
        self._standing, self._begun = standing, False
        with full_disk_told(self._folder.path):
            standing.write(self._folder)

    def _written(self, checkpoint: Path) -> dict[str, float]:
        """What the metrics have of a checkpoint's evaluation already."""
        rows = [row for row in read_metrics(self._folder.path) if MEAN in row and row["step"] == int(checkpoint.name)]
        return {MEAN: float(rows[-1][MEAN])} if rows else {}
