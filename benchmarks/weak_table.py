"""Tables of `benchmarks.weak`: how near speeds are to what sleeping allows, and what is full first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BAR = 0.95
"""Efficiency up to the most actors."""
FULL = 0.9
"""Share of its time from which something is full."""


@dataclass(frozen=True)
class Weak:
    """A number of actors and a length of sleep.

    Attributes:
        actors: how many, of one environment each.
        milliseconds: that each step and reset sleeps, of which there is one for each row.
        rows: of a block.
        speed: env steps a second trained on, median over repeats.
        speeds: of the repeats.
        taken: seconds to the first learner step ("start"), and MiB: of the mean actor with shared pages divided
            ("actor"), its own alone ("actor_alone"), resident ("actor_resident"), and of "all" processes; may be empty.
        values: mean of every metric's tag.
        limit: the verdict in words.
    """

    actors: int
    milliseconds: int
    rows: int
    speed: float
    speeds: Sequence[float]
    taken: Mapping[str, float]
    values: Mapping[str, float]
    limit: str

    @property
    def step(self) -> float:
        """Seconds of a learner step, which takes a block of every actor."""
        return sum(seconds for tag, seconds in self.values.items() if tag.startswith("time/learner_"))

    @property
    def asleep(self) -> float:
        """Share of a learner step that a block's sleeping alone takes: 1 is ideal."""
        return self.rows * self.milliseconds / 1000 / self.step

    @property
    def full(self) -> dict[str, float]:
        """Shares of wall time in which something is used, or waited for."""
        actor = _shares(self.values, "actor")
        shares = {
            "processors": self.values.get("bottleneck/cores_busy", 0.0),
            "learner": self.values.get("bottleneck/learners_busy", 0.0),
            "shard": self.values.get("bottleneck/shards_busy", 0.0),
        }
        waits = {
            "environment": "environment",
            "for weights": "wait",
            "for room": "room",
            "for the driver": "between",
        }
        return shares | {name: actor.get(stage, 0.0) for name, stage in waits.items()}


def efficiency(lines: Sequence[Weak], line: Weak) -> float:
    """Rows a second of each actor over those of each where there are fewest; 1 is ideal.

    Not env steps: how many of the rows are decisions depends on how often episodes end.
    """
    return lines[0].step / line.step


def saturation(lines: Sequence[Weak]) -> str:
    """In one sentence from where on sleeping is no longer all, and what is full there.

    Args:
        lines: of one number of actors, by shorter and shorter sleeps.
    """
    for line in lines:
        if line.asleep >= BAR:
            continue
        kinds = {name: line.full[name] for name in ("processors", "learner", "shard")}
        name = max(kinds, key=lambda kind: kinds[kind])
        what = f"first the {name}: used {kinds[name]:.0%} of the time" + ("" if kinds[name] >= FULL else ", not full")
        return (
            f"{line.actors} actors of {line.milliseconds} ms a step make {line.asleep:.0%} of what sleeping allows; "
            f"{what}; the verdict: {line.limit or 'none'}"
        )
    return "nothing is full" if lines else ""


def markdown(scaling: Sequence[Weak], shorter: Sequence[Weak], foretold: Mapping[int, float]) -> str:
    """Three tables: efficiency beside the plan, memory and starts, and what is full.

    Args:
        scaling: by growing number of actors.
        shorter: by shorter sleeps.
        foretold: env steps a second by number of actors, as planned; may lack any.
    """
    return "\n\n".join([_efficiencies(scaling, foretold), _starts([*scaling, *shorter]), _uses([*scaling, *shorter])])


def _efficiencies(lines: Sequence[Weak], foretold: Mapping[int, float]) -> str:
    rows = [
        "| actors | a learner step | rows/s | efficiency | of what sleeping allows | env steps/s | foretold | error |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        plan = foretold.get(line.actors)
        told = f"{plan:,.1f} | {plan / line.speed - 1:+.1%}" if plan else "- | -"
        share = efficiency(lines, line)
        met = f"{share:.1%}" if share >= BAR else f"**{share:.1%}**"
        speeds = f"{1000 * line.step:,.0f} ms | {line.actors * line.rows / line.step:,.1f} | {met} | {line.asleep:.1%}"
        rows.append(f"| {line.actors} | {speeds} | {line.speed:,.1f} | {told} |")
    return "\n".join(rows)


def _starts(lines: Sequence[Weak]) -> str:
    rows = [
        "| actors | ms a step | to the first learner step | an actor, shared pages divided | of it its own "
        "| resident | all processes |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        if not line.taken:
            continue
        sizes = [line.taken[name] for name in ("actor", "actor_alone", "actor_resident")]
        cells = [f"{line.taken['start']:.1f} s", *(f"{size:.0f} MiB" for size in sizes)]
        rows.append(
            f"| {line.actors} | {line.milliseconds} | {' | '.join(cells)} | {line.taken['all'] / 1024:.1f} GiB |"
        )
    return "\n".join(rows)


def _uses(lines: Sequence[Weak]) -> str:
    names = list(lines[0].full) if lines else []
    heads = ["actors", "ms a step", "rows/s", "of what sleeping allows", *names, "draws ready", "verdict"]
    rows = ["| " + " | ".join(heads) + " |", "|" + "--:|" * (len(heads) - 1) + "---|"]
    for line in lines:
        shares = [f"{share:.0%}" for share in line.full.values()]
        queue = line.values.get("bottleneck/queue")
        cells = [
            line.actors,
            line.milliseconds,
            f"{line.actors * line.rows / line.step:,.0f}",
            f"{line.asleep:.0%}",
            *shares,
        ]
        cells += ["-" if queue is None else f"{queue:.2f}", line.limit.partition(":")[0]]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def _shares(values: Mapping[str, float], kind: str) -> dict[str, float]:
    """Of the stages of a block, or of a learner step."""
    stages = {tag.removeprefix(f"time/{kind}_"): values[tag] for tag in values if tag.startswith(f"time/{kind}_")}
    whole = sum(stages.values()) or 1.0
    return {stage: seconds / whole for stage, seconds in stages.items()}
