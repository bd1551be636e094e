"""What was measured: every configuration, what limits it, and how each series scales."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.bottleneck import NotMeasured, Verdict, verdict
from cluster.experiment import Experiment
from cluster.parsing import parse
from cluster.scale_folder import ScaleFolder
from cluster.scale_law import LEAST, Law, fitted
from cluster.scale_measure import Figure, Measurement, NoMeasurement, measured_run, return_at, together
from cluster.scale_plan import Plan, Point, Series


@dataclass(frozen=True)
class Result:
    """A configuration and its repeats.

    Attributes:
        point: the configuration.
        repeats: that were measured, by number; in order.
        error: the first that went wrong with one of them; empty: nothing.
        values: median over the repeats of every tag's mean.
        limit: what limits it; None: its metrics do not tell.
        returned: mean training return at the env steps that all runs have made; None: no episode had ended.
    """

    point: Point
    repeats: Mapping[int, Measurement]
    error: str
    values: Mapping[str, float] = field(default_factory=dict)
    limit: Verdict | None = None
    returned: Figure | None = None

    @property
    def trained(self) -> Figure | None:
        """Env steps a second that were trained on."""
        return Figure.of([each.trained for each in self.repeats.values()]) if self.repeats else None

    @property
    def generated(self) -> Figure | None:
        """Env steps a second that were made."""
        return Figure.of([each.generated for each in self.repeats.values()]) if self.repeats else None


@dataclass(frozen=True)
class Trend:
    """How a series scales.

    Attributes:
        series: the series.
        counts: of processes, growing; only configurations that were measured, here and in what follows.
        speeds: env steps a second trained on.
        law: that they follow; None: too few of them.
        knees: of the laws that single repeats follow, where all have enough of them.
    """

    series: Series
    counts: Sequence[int]
    speeds: Sequence[Figure]
    law: Law | None
    knees: Sequence[float]

    def speed_up(self, count: int) -> float:
        """Speed beside that of the fewest processes."""
        return self.speeds[self.counts.index(count)].median / self.speeds[0].median

    def efficiency(self, count: int) -> float:
        """Speed-up over how many times as many processes there are: 1 is ideal."""
        return self.speed_up(count) * self.counts[0] / count

    @property
    def said(self) -> str:
        """Its law in words."""
        if self.law is None:
            return f"no law: it wants {LEAST} numbers of {self.series.along}, and has {len(self.counts)}"
        knees = [knee for knee in self.knees if math.isfinite(knee)]
        if not math.isfinite(self.law.knee) or len(knees) < 2:
            return self.law.said(self.series.along)
        none = f", none in {len(self.knees) - len(knees)} of them" if len(knees) < len(self.knees) else ""
        return f"{self.law.said(self.series.along)}; in single repeats at {min(knees):.1f} to {max(knees):.1f}{none}"


@dataclass(frozen=True)
class Results:
    """All that was measured so far.

    Attributes:
        results: by the configuration's name.
        trends: of all series.
        steps: env steps that all runs have made, at which returns are compared.
    """

    results: Mapping[str, Result]
    trends: Sequence[Trend]
    steps: int


def collected(scale: ScaleFolder) -> Results:
    """What the folders of the runs tell."""
    read = {point.name: _repeats(scale, point) for point in scale.plan.points}
    ends = [each.steps for repeats, _ in read.values() for each in repeats.values()]
    steps = min(ends, default=0)
    results = {point.name: _result(scale, point, *read[point.name], steps) for point in scale.plan.points}
    return Results(results, trends(scale.plan, results), steps)


def _repeats(scale: ScaleFolder, point: Point) -> tuple[dict[int, Measurement], str]:
    """The repeats of a configuration that gave a measurement, and the first error of the others."""
    found, errors = {}, []
    for repeat in range(scale.options.repeats):
        error = scale.error(point, repeat)
        if error == "":
            try:
                found[repeat] = measured_run(scale.run(point, repeat), scale.options.warm_up)
            except NoMeasurement as trouble:
                error = str(trouble)
        if error:
            errors.append(f"repeat {repeat + 1}: {error}")
    return found, errors[0] if errors else ""


def _result(scale: ScaleFolder, point: Point, repeats: Mapping[int, Measurement], error: str, steps: int) -> Result:
    if not repeats:
        return Result(point, repeats, error)
    values = together([*repeats.values()])
    experiment, _ = parse(scale.recipe, list(point.arguments))
    returns = [value for each in repeats.values() if (value := return_at(each, steps)) is not None]
    return Result(point, repeats, error, values, _limit(values, experiment), Figure.of(returns) if returns else None)


def _limit(values: Mapping[str, float], experiment: Experiment) -> Verdict | None:
    try:
        return verdict(values, experiment)
    except NotMeasured:
        return None


def trends(plan: Plan, results: Mapping[str, Result]) -> list[Trend]:
    """How all series scale."""
    return [_trend(series, [results[name] for name in series.points]) for series in plan.series]


def _trend(series: Series, results: Sequence[Result]) -> Trend:
    def law(speeds: Mapping[int, float]) -> Law | None:
        return fitted([*speeds], [*speeds.values()])

    there = {series.number(result.point): figure for result in results if (figure := result.trained) is not None}
    rounds: dict[int, dict[int, float]] = {}
    for result in results:
        for repeat, each in result.repeats.items():
            rounds.setdefault(repeat, {})[series.number(result.point)] = each.trained
    laws = [law(speeds) for speeds in rounds.values()]
    knees = [each.knee for each in laws if each is not None]
    whole = law({count: figure.median for count, figure in there.items()})
    return Trend(series, [*there], [*there.values()], whole, knees if len(knees) == len(laws) else [])
