"""Population based training (Jaderberg et al., arXiv:1711.09846): runs go on from checkpoints of better ones.

At each look the worst quarter takes over from the best one, with settings that differ a little from theirs. Tune's own
scheduler of that name restores trials from checkpoints that Tune keeps, and remembers what it decided in its process
alone. Here runs keep theirs, and a sweep that was killed goes on: all runs are trained to a look, what is decided there
is written down, then carried out, and what was not carried out in time is so later.
"""

import math
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from cluster import checkpoints, standing
from cluster.commands import checked_spaces
from cluster.condition import UNTIL
from cluster.events import Events
from cluster.experiment import ExperimentError
from cluster.lock import holding
from cluster.metrics import read_metrics
from cluster.mistakes import is_mistake
from cluster.parsing import parsed
from cluster.run_folder import RunFolder, RunFolderError
from cluster.segments_folder import remove_orphans
from cluster.sweep_folder import Planned, Setting, SweepFolder, settled
from cluster.sweep_grid import changed, grouped
from cluster.sweep_lineage import Lineage, TakeOver
from cluster.sweep_table import SEED

RETURN = "rollout/ep_rew_mean"
RESAMPLED = 0.25
"""With this probability a setting is one of those that the sweep was given, else a number is one of `FACTORS` of it."""
FACTORS = 0.8, 1.2


class Population:
    """The runs of a sweep as a population; every method can be repeated after a death at any moment.

    Args:
        sweep: the sweep; the current folder must be where it was called.
        every: env steps between two looks.
    """

    def __init__(self, sweep: SweepFolder, every: int) -> None:
        self._sweep, self._every = sweep, every
        self._runs = {run.name: run for run in sweep.runs}
        self._kind, self._steps = _kind(sweep.recipe, sweep.runs[0].arguments), sweep.runs[0].steps
        begun = Lineage.read(sweep.path) or Lineage(self._after(0), {})
        settings = {run.name: _explored(run) for run in sweep.runs} | begun.settings
        self._lineage = replace(begun, until=min(begun.until, self._steps), settings=settings)
        self._lineage.write(sweep.path)

    @property
    def until(self) -> int:
        """Env steps of the next look."""
        return self._lineage.until

    def begin(self) -> list[str]:
        """Carry out what was decided; which runs have to come to the next look, or to their end."""
        for number in range(self._lineage.applied, len(self._lineage.taken)):
            self._take_over(self._lineage.taken[number])
            self._lineage = replace(self._lineage, applied=number + 1)
            self._lineage.write(self._sweep.path)
        left = [name for name in self._runs if not settled(self._sweep, name) and not self._waits(name)]
        for name in left:
            self._describe(name)
        return left

    def look(self) -> Sequence[TakeOver] | None:
        """Decide who takes over from whom; None: there is no look any more, or nobody came to it."""
        at = self._lineage.until
        if at >= self._steps or not any(map(self._there, self._runs)):
            return None
        values = {name: self._value(name) for name in self._runs}
        known = [name for name in self._runs if values[name] is not None or not self._there(name)]
        ranked = sorted(known, key=lambda name: -math.inf if (value := values[name]) is None else value)
        quarter = max(1, len(ranked) // 4)
        rng = random.Random(f"{at}")
        found = [self._decided(name, rng.choice(ranked[-quarter:]), values, rng) for name in ranked[:quarter]]
        taken = [take for take in found if take is not None]
        settings = self._lineage.settings | {take.run: take.after for take in taken}
        all_taken, next_look = [*self._lineage.taken, *taken], min(self._after(at), self._steps)
        since = self._newest(at)
        self._lineage = replace(self._lineage, until=next_look, since=since, settings=settings, taken=all_taken)
        self._lineage.write(self._sweep.path)
        return taken

    def _at(self, name: str) -> int:
        """Env steps of a run's newest checkpoint; 0: it has none."""
        found = RunFolder(self._sweep.path / name).checkpoints()
        return int(found[-1].name) if found else 0

    def _newest(self, least: int) -> int:
        """The most env steps that a run has which is still trained, or so many."""
        return max([least, *(at for at in map(self._at, self._runs) if at < self._steps)])

    def _after(self, look: int) -> int:
        """Env steps of the look after one: no run has come to it yet, all train till then."""
        return look + self._every * ((self._newest(look) - look) // self._every + 1)

    def _there(self, name: str) -> bool:
        """Whether a run has come to the look."""
        return self._at(name) >= self._lineage.until

    def _waits(self, name: str) -> bool:
        """Whether a run is there and no further: at its end it has episodes to play."""
        return self._lineage.until <= self._at(name) < self._steps

    def _value(self, name: str) -> float | None:
        """A run's return at this look; None: it failed, or no training episode has ended since the look before."""
        if not self._there(name):
            return None
        rows = read_metrics(self._sweep.path / name)
        found = [row[RETURN] for row in rows if RETURN in row and row["step"] > self._lineage.since]
        return found[-1] if found and math.isfinite(found[-1]) else None

    def _decided(self, name: str, source: str, values: dict[str, float | None], rng: random.Random) -> TakeOver | None:
        """That a run goes on from a better one; None: it is not better, or the run ended or never began."""
        own, other = values[name], values[source]
        if other is None or (own is not None and own >= other) or settled(self._sweep, name):
            return None
        if not (self._sweep.path / name / "experiment.json").exists():
            return None
        before = self._lineage.settings[source]
        after = self._explored(name, before, rng)
        steps = int(RunFolder(self._sweep.path / source).latest().name)
        return TakeOver(name, source, steps, own, other, before, after)

    def _explored(self, name: str, settings: dict[str, Setting], rng: random.Random) -> dict[str, Setting]:
        """Settings near others; one stays as it is where the recipe refuses all that was thought of."""
        after = dict(settings)
        for flag, value in settings.items():
            given = list(dict.fromkeys(run.settings[flag] for run in self._runs.values()))
            tried = (after | {flag: new} for new in _near(value, given, rng))
            after = next((each for each in tried if self._fits(name, each)), after)
        return after

    def _fits(self, name: str, settings: dict[str, Setting]) -> bool:
        return _fits(self._sweep.recipe, changed(self._runs[name].arguments, settings), self._kind)

    def _take_over(self, take: TakeOver) -> None:
        """Give a run another's checkpoint and rows; random numbers come from its own seed."""
        path, source = self._sweep.path / take.run, RunFolder(self._sweep.path / take.source)
        with holding(path) as alone:
            if not alone:
                raise RunFolderError(f"{path} is being trained by another process: wait for it, or stop it first")
            tensors, values = checkpoints.read(source.path_for(take.steps))
            remove_orphans()  # else rows of its own that it never archived would come to the log that is copied here
            shutil.rmtree(path / "replay", ignore_errors=True)
            shutil.copytree(source.path / "replay", path / "replay", ignore=shutil.ignore_patterns("segments"))
            folder = RunFolder(path)
            for old in folder.checkpoints():
                shutil.rmtree(old)
            (path / standing.FILE).unlink(missing_ok=True)  # its best may bear the name of the other's checkpoint
            own = {name: tensor for name, tensor in tensors.items() if not name.startswith("random")}
            checkpoints.write(folder.path_for(take.steps), own, values, {})  # its own episodes
            events = Events(path)
            events.text("population", str(take), step=take.steps)
            numbers = {name: value for name, value in take.after.items() if not isinstance(value, str)}
            events.scalars(take.steps, {f"population/{name}": float(value) for name, value in numbers.items()})
            events.close()

    def _describe(self, name: str) -> None:
        """Let a run go on with its settings, to the next look."""
        folder = RunFolder(self._sweep.path / name)
        if not folder.checkpoints():
            return
        values = folder.load_experiment()
        settings = self._lineage.settings[name] | {UNTIL.removeprefix("--"): self._lineage.until}
        arguments = changed(values["arguments"], settings)
        experiment, _, parameters = parsed(values["recipe"], arguments)
        taken = [str(take) for take in self._lineage.taken if take.run == name]
        told = {"arguments": arguments, "parameters": parameters, "experiment": repr(experiment), "taken_over": taken}
        folder.save_experiment(values | told)


def _near(value: Setting, given: Sequence[Setting], rng: random.Random) -> Iterator[Setting]:
    """What to try instead of a value, best first."""
    others = rng.sample(given, len(given))
    if rng.random() < RESAMPLED:
        yield from others
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for factor in rng.sample(FACTORS, len(FACTORS)):
            yield value * factor if isinstance(value, float) else round(value * factor)


def _explored(run: Planned) -> dict[str, Setting]:
    """A run's settings, its seed aside: that it keeps."""
    return {name: value for name, value in run.settings.items() if name != SEED}


def check_members(sweep: SweepFolder) -> None:
    """Look whether the runs of a sweep can be a population.

    Raises:
        ExperimentError: runs that cannot go on from each other's checkpoints, or nothing to explore.
    """
    if not all(map(_explored, sweep.runs)):
        raise ExperimentError(
            "a population that differs in seeds only explores nothing: give another flag several values"
        )
    kind = _kind(sweep.recipe, sweep.runs[0].arguments)
    for run in sweep.runs:
        if any(flag == UNTIL for flag, _ in grouped(run.arguments)):
            raise ExperimentError(f"{UNTIL} is given, but a population sets it itself: leave it out")
        if not _fits(sweep.recipe, changed(run.arguments, _explored(run)), kind):
            raise ExperimentError(
                f"{run.name} cannot go on from a checkpoint of {sweep.runs[0].name}: runs of a population may "
                "differ in numbers, words and switches that leave model, tables, kinds of updates, environments, "
                "steps and topology as they are; choose other flags, or leave out --sweep.scheduler pbt"
            )


def _fits(recipe: str, arguments: Sequence[str], kind: Any) -> bool:
    """Whether a recipe takes the flags, and the run is of a kind."""
    try:
        return _kind(recipe, arguments) == kind
    except SystemExit:
        return False
    except Exception as error:
        if is_mistake(error):
            return False
        raise


def _kind(recipe: str, arguments: Sequence[str]) -> Any:
    """What must be the same of two runs of which one goes on from the other's checkpoint."""
    experiment = parsed(recipe, list(arguments))[0]
    spaces = checked_spaces(experiment)
    with torch.device("meta"):
        state = spaces.model(experiment, learning=True).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    updates = [type(update) for update in experiment.updates]
    places = experiment.envs, experiment.rows, experiment.steps, experiment.topology, experiment.store
    return experiment.environment, experiment.evaluation, experiment.tables, updates, places, shapes
