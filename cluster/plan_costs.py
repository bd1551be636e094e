"""What the parts of a run cost, as a plan wants to know it: found from runs that were watched, kept as JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from cluster.experiment import ExperimentError
from cluster.whole_file import replace_text


@dataclass(frozen=True)
class Line:
    """A cost that has a fixed part and grows evenly with a number.

    Attributes:
        fixed: seconds.
        each: seconds for each of what is counted.
    """

    fixed: float = 0.0
    each: float = 0.0

    def __call__(self, count: int | float) -> float:
        """Seconds for so many."""
        return self.fixed + self.each * count


@dataclass(frozen=True)
class Seen:
    """A short run, as it was watched: means over its learner steps.

    Processor seconds are of all threads of a process. Where they are None nobody looked at processes.

    Attributes:
        actors: how many.
        envs: environments of each actor.
        learners: how many.
        rows: that each learner was given in a step, over all tables.
        reductions: sums over learners in a step.
        step: seconds from one learner step to the next.
        block: seconds that an actor spent on a block: policy, environments, writing; waiting is not counted.
        update: seconds that a learner spent on a step, once it had its rows.
        decisions: env steps trained on in a step.
        spread: standard deviation of `block` over blocks, divided by their mean.
        cpu: processor seconds of a learner step, by kind of process: "actor", "learner", "shard", "channel", "driver"
            (means over processes of a kind), and "ray", its own processes, all together.
        memory: resident bytes of a process, by kind.
        snapshot: bytes that an actor's state takes in a report.
    """

    actors: int
    envs: int
    learners: int
    rows: float
    reductions: int
    step: float
    block: float
    update: float
    decisions: float
    spread: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    snapshot: float = 0.0


@dataclass(frozen=True)
class Costs:
    """What the parts of a run cost on the machine where it was measured. Seconds; work is that of a processor.

    Attributes:
        act_work: of an actor for a block, by environments.
        act_rest: beyond that, in which an actor's processor has nothing to do: an environment that waits.
        act_aside: of an actor's other threads, which a block does not wait for.
        learn_work: of a learner for a step, by its rows.
        learn_rest: in which a learner's processor has nothing to do: a GPU computes.
        learn_aside: of a learner's other threads, which a step does not wait for.
        commit: of a shard for an actor's commit, by environments.
        draw: of a shard for a learner's draw.
        publish: of the weight channel for a version.
        read: of the weight channel for an actor that asks for weights.
        advance: of the driver for a learner step.
        report: of the driver for an actor's report and its next block.
        look: of the driver for each call under way, whenever it looks which has ended.
        far_row: of a shard for a row that comes from another machine, or goes to one.
        reduce: of a sum over learners, beside the network.
        hop: until a message arrives.
        ray: share of a core that Ray's own processes take on the driver's node.
        spread: standard deviation of the time of a block over its mean.
        decisions: env steps trained on, for each environment in a learner step.
        snapshot: bytes of an actor's state in a report, for each environment.
        memory: resident bytes of a process, by kind.
        envs: fewest and most environments of an actor that were seen.
        rows: fewest and most rows of a learner that were seen.
        error: of the model on what it was made from: the largest relative error of a learner step's time; None: not
            known, since it was made from one run, which always fits.
        assumed: costs that were not measured, but typical.
        machine: where it was measured.
        parameters: the recipe and its flags that were measured (see `plan_source`); empty: nobody kept them.
    """

    act_work: Line
    learn_work: Line
    act_rest: Line = Line()
    learn_rest: Line = Line()
    act_aside: Line = Line()
    learn_aside: Line = Line()
    commit: Line = Line(1.5e-3, 2e-5)
    draw: float = 1.5e-3
    publish: float = 2e-3
    read: float = 1e-3
    advance: float = 5e-3
    report: float = 1e-3
    look: float = 1e-6
    far_row: float = 5e-6
    reduce: float = 1e-3
    hop: float = 5e-4
    ray: float = 0.05
    spread: float = 0.1
    decisions: float = 1.0
    snapshot: float = 0.0
    memory: dict[str, float] = field(
        default_factory=lambda: {"actor": 4e8, "learner": 5e8, "shard": 2e8, "channel": 2e8, "driver": 6e8}
    )
    envs: tuple[int, int] = (1, 1)
    rows: tuple[float, float] = (1.0, 1.0)
    error: float | None = 0.0
    assumed: tuple[str, ...] = ()
    machine: str = ""
    parameters: dict[str, bool | int | float | str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        replace_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Costs":
        """What `save` wrote.

        Raises:
            ExperimentError: the file is not there or is none of these.
        """
        try:
            values: Any = json.loads(path.read_text())
            lines: dict[str, Any] = {name: Line(**values[name]) for name in LINES if name in values}
            ranges = {name: tuple(values[name]) for name in ("envs", "rows", "assumed") if name in values}
            return cls(**(values | lines | ranges))
        except (OSError, ValueError, TypeError) as error:
            raise ExperimentError(f"{path} is no calibration ({error}): make one with --save") from error


LINES = tuple(f.name for f in fields(Costs) if f.type is Line)
PROCESSES = ("commit", "draw", "publish", "read", "advance", "report", "ray")
"""Costs that only processor times tell."""
UNDIVIDED = ("act_rest", "learn_rest", "act_aside", "learn_aside")
"""What they tell of actors and learners: without them, all the time of these is taken to be computing."""


def fitted(seen: Sequence[Seen]) -> Costs:
    """The costs that explain what was seen best; those that nobody measured stay typical, and `assumed` names them.

    Of one number of environments alone, actors' and learners' costs are taken to be in proportion to it.
    """
    alone = [each for each in seen if each.actors == 1] or seen
    single = [each for each in seen if each.learners == 1] or seen
    # Actors that disturb each other take longer: theirs is only looked at where nothing else tells of as many sizes.
    acting = alone if {each.envs for each in alone} == {each.envs for each in seen} else seen
    found: dict[str, Any] = {
        **_divided("act", [(e.envs, e.block, e.cpu.get("actor", e.block)) for e in acting]),
        **_divided("learn", [(e.rows, e.update, e.cpu.get("learner", e.update)) for e in single]),
        "spread": median(each.spread for each in alone),
        "decisions": mean(each.decisions / (each.actors * each.envs) for each in seen),
        "snapshot": mean(each.snapshot / each.envs for each in seen),
        "envs": (min(each.envs for each in seen), max(each.envs for each in seen)),
        "rows": (min(each.rows for each in seen), max(each.rows for each in seen)),
    }
    watched = [each for each in seen if each.cpu]
    if watched:
        found |= _servers(watched)
        kinds = set.intersection(*(set(each.memory) for each in watched))
        found["memory"] = {kind: max(each.memory[kind] for each in watched) for kind in sorted(kinds)}
    if many := [each for each in seen if each.learners > 1]:
        alone_seconds = [found["learn_work"](each.rows) + found["learn_rest"](each.rows) for each in many]
        beyond = zip(many, alone_seconds, strict=True)
        found["reduce"] = mean(max(0.0, each.update - seconds) / max(1, each.reductions) for each, seconds in beyond)
    assumed = [name for name in PROCESSES if name not in found] + ["reduce"] * (not many)
    assumed += [] if watched else UNDIVIDED
    return Costs(**found, assumed=tuple(assumed))


def _divided(part: str, points: Sequence[tuple[int | float, float, float]]) -> dict[str, Line]:
    """Lines through (count, seconds, processor seconds): of a processor while all wait, of waiting, of others beside.

    A process that has the processor longer than it takes has other threads, which nobody waits for.
    """
    return {
        f"{part}_work": _line([(count, min(cpu, wall)) for count, wall, cpu in points]),
        f"{part}_rest": _line([(count, max(0.0, wall - cpu)) for count, wall, cpu in points]),
        f"{part}_aside": _line([(count, max(0.0, cpu - wall)) for count, wall, cpu in points]),
    }


def _servers(seen: Sequence[Seen]) -> dict[str, Any]:
    """Costs of those who serve all others."""
    once, each = _numbers(seen, lambda s: 1), _numbers(seen, lambda s: s.actors)
    envs, ranks = _numbers(seen, lambda s: s.actors * s.envs), _numbers(seen, lambda s: s.learners)
    commit, window, draw = least([each, envs, ranks], _numbers(seen, lambda s: s.cpu["shard"]))
    read, publish = least([each, once], _numbers(seen, lambda s: s.cpu["channel"]))
    report, advance = least([each, once], _numbers(seen, lambda s: s.cpu["driver"]))
    return {
        "commit": Line(commit, window),
        "draw": draw,
        "publish": publish,
        "read": read,
        "advance": advance,
        "report": report,
        "ray": mean(each.cpu.get("ray", 0.0) / each.step for each in seen),
    }


def _numbers(seen: Sequence[Seen], count: Callable[[Seen], int | float]) -> list[float]:
    return [float(count(each)) for each in seen]


def _line(points: Sequence[tuple[int | float, float]]) -> Line:
    """The line through points (count, seconds) that has no negative part."""
    counts, seconds = ([float(value) for value in column] for column in zip(*points, strict=True))
    if len(set(counts)) == 1:
        return Line(0.0, mean(seconds) / counts[0])
    return Line(*least([[1.0] * len(counts), counts], seconds))


def least(columns: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Coefficients of columns, none of them negative, whose sum is nearest to values, relative to these.

    Small ones weigh as much as a tenth of the largest: one of nothing does not outweigh all others.
    All choices of columns are tried: there are few. Where several do equally well, the one of the fewest columns.
    """
    wanted = np.asarray(values, float)
    scale = 1 / np.maximum(wanted, max(1e-9, 0.1 * wanted.max()))
    matrix, goal = np.asarray(columns, float).T * scale[:, None], wanted * scale
    best, found = float(goal @ goal) + 1e-12, np.zeros(len(columns))
    for size in range(1, len(columns) + 1):
        for chosen in combinations(range(len(columns)), size):
            part = matrix[:, chosen]
            solution = np.linalg.lstsq(part, goal, rcond=None)[0]
            error = float(((part @ solution - goal) ** 2).sum())
            if (solution >= 0).all() and error < best - 1e-12:
                best, found = error, np.zeros(len(columns))
                found[list(chosen)] = solution
    return found.tolist()
