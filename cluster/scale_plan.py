"""What is run to measure scaling: configurations, checked before anything starts, and the series that they form."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cluster.commands import checked_spaces
from cluster.evaluations import check_evaluations
from cluster.experiment import Experiment, ExperimentError
from cluster.film import check_film
from cluster.parsing import parsed
from cluster.recipe import find_recipe
from cluster.run import RunOptions
from cluster.scale_options import ScaleOptions
from cluster.sweep_grid import Group, changed, flag_kinds, plain
from cluster.writers import check_services

ENDLESS = 10**9
"""Env steps of the recipe: a run is ended when it was measured."""
OURS = {
    "topology.actors": "--actors",
    "topology.learners": "--learners",
    "run.name": "--name",
    "run.until": "--steps",
}
"""Flags of a run that are ours to give, and what says it here."""

Kind = Literal["strong", "weak"]
Along = Literal["actors", "learners"]


@dataclass(frozen=True)
class Point:
    """One configuration.

    Attributes:
        name: "actors=2,envs=16,learners=1"; its folder's name.
        arguments: flags of `contrail train RECIPE`, without those that differ between its repeats.
        actors: processes that step environments.
        envs: environments over all actors.
        learners: processes that learn.
    """

    name: str
    arguments: Sequence[str]
    actors: int
    envs: int
    learners: int


@dataclass(frozen=True)
class Series:
    """Configurations that differ in the number of processes of one kind; others may share them.

    Attributes:
        kind: strong: the environments are the same for all; weak: they are the same for each actor.
        envs: that are the same.
        learners: of all its configurations; 0: they are what differs.
        points: names of its configurations, by growing number.
    """

    kind: Kind
    envs: int
    learners: int
    points: Sequence[str]

    @property
    def along(self) -> Along:
        """What there is more and more of."""
        return "actors" if self.learners else "learners"

    def number(self, point: Point) -> int:
        """Of what there is more and more of, in a configuration."""
        return point.actors if self.along == "actors" else point.learners

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        envs = f"{self.envs} environments {'in all' if self.kind == 'strong' else 'an actor'}"
        return f"{self.kind}, {envs}" + (f", {counted(self.learners, 'learner')}" if self.learners else "")


@dataclass(frozen=True)
class Plan:
    """All that is run.

    Attributes:
        points: every configuration once.
        series: that they form.
        seed: of the first repeat; None: the recipe has no such flag.
    """

    points: Sequence[Point]
    series: Sequence[Series]
    seed: int | None

    def order(self, repeats: int) -> list[tuple[Point, int]]:
        """Configurations and repeats, counted from 0, each round beginning elsewhere: machines drift."""
        count, shift = len(self.points), max(1, len(self.points) // repeats)
        return [
            (self.points[(place + index * shift) % count], index) for index in range(repeats) for place in range(count)
        ]


def counted(number: int, what: str) -> str:
    """A number of things: "1 learner", "2 learners"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def planned(recipe: str, flags: Sequence[Group], options: ScaleOptions) -> tuple[Plan, Experiment, RunOptions]:
    """What is run, and what the flags give without any of that.

    Args:
        recipe: its name.
        flags: those of all runs.
        options: checked.

    Raises:
        ExperimentError: a flag is ours to give, the recipe has none for what differs, or a configuration cannot be.
        MissingExtra: a film or a service wants a package that is not there.
        SystemExit: a flag or a value that `contrail train` refuses; it was told why.
    """
    kinds = flag_kinds(find_recipe(recipe))
    _check_flags(recipe, flags, options, kinds)
    common = [token for flag, values in flags for token in (flag, *values)]
    base, run, parameters = parsed(recipe, common)
    if base.store:
        raise ExperimentError(f"{recipe} learns from {base.store}, without actors: there is nothing to scale")
    made: dict[tuple[int, int, int], Point] = {}
    series: dict[tuple[Kind, int, int], list[str]] = {}
    for kind, size, actors, learners in _combinations(options, base):
        envs = size * actors if kind == "weak" else size
        if (actors, envs, learners) not in made:
            made[actors, envs, learners] = _point(recipe, common, kinds, actors=actors, envs=envs, learners=learners)
        alone = len(options.actors) == 1 and len(options.learners) > 1
        key: tuple[Kind, int, int] = ("strong", envs, 0) if alone else (kind, size, learners)
        names, name = series.setdefault(key, []), made[actors, envs, learners].name
        if name not in names:  # with one number of actors, so many in all are so many of each, too
            names.append(name)
    seed = int(parameters["seed"]) if "seed" in parameters else None
    return Plan([*made.values()], [Series(*key, names) for key, names in series.items()], seed), base, run


def _combinations(options: ScaleOptions, base: Experiment) -> Iterator[tuple[Kind, int, int, int]]:
    """Kind of scaling, its environments, actors and learners."""
    sizes: list[tuple[Kind, int]] = [("strong", envs) for envs in options.envs]
    sizes += [("weak", envs) for envs in options.envs_per_actor]
    learners = options.learners or (base.topology.learners,)
    sizes = sizes or [("strong", base.envs)]
    for (kind, size), number, actors in itertools.product(sizes, learners, options.actors):
        yield kind, size, actors, number


def _check_flags(recipe: str, flags: Sequence[Group], options: ScaleOptions, kinds: Mapping[str, Any]) -> None:
    for flag, _ in flags:
        if plain(flag) in OURS:
            raise ExperimentError(f"{flag} differs between runs here: give {OURS[plain(flag)]} instead")
    wanted = ["topology.actors", *(["envs"] if options.envs or options.envs_per_actor else [])]
    for flag in wanted:
        if flag not in kinds:
            raise ExperimentError(f"{recipe} has no flag --{flag}: add it to the recipe, so that it can be scaled")


def _point(
    recipe: str, common: Sequence[str], kinds: Mapping[str, Any], *, actors: int, envs: int, learners: int
) -> Point:
    """A configuration, after the looks that `contrail train` takes before it starts."""
    given = {"topology.actors": actors, "topology.learners": learners, "envs": envs, "steps": ENDLESS}
    arguments = changed(common, {flag: value for flag, value in given.items() if flag in kinds})
    experiment, options, _ = parsed(recipe, arguments)
    checked_spaces(experiment)
    if options.film:
        check_film(experiment)
    check_services(options.writers)
    check_evaluations(experiment, options.evaluate_every)
    return Point(f"actors={actors},envs={envs},learners={learners}", arguments, actors, envs, learners)
