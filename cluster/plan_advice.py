"""What a planned run breaks first: what cannot be at all, and what would make it faster, tried out in the model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cluster.plan_costs import Costs, Line
from cluster.plan_design import Design, Forecast
from cluster.plan_model import BLOCKS, Simulation

WORTH = 0.03
"""Gain in speed from which a change is worth telling."""


@dataclass(frozen=True)
class Change:
    """Something that could be otherwise.

    Attributes:
        part: what would be relieved.
        knob: how to do it.
        gain: by how much the run would be faster, as a part of its speed.
    """

    part: str
    knob: str
    gain: float = 0.0

    def __str__(self) -> str:
        return f"{self.knob}: {self.gain:+.0%}"


@dataclass(frozen=True)
class Memory:
    """Bytes on a node of each kind; None: there is none of that kind."""

    driver: float
    actors: float | None
    learners: float | None

    @property
    def most(self) -> float:
        """Of any node."""
        return max(self.driver, self.actors or 0.0, self.learners or 0.0)


def memory(costs: Costs, design: Design, store: int) -> Memory:
    """What processes and the store's segments take on each kind of node.

    Args:
        costs: with the resident bytes of processes, in which pages that several share count for each.
        design: of the run.
        store: bytes of live segments, all of them on the driver's node.
    """
    of, share = costs.memory, design.batch / design.learners
    buffers = design.row_bytes * max(0.0, share - costs.rows[1]) * (2 if design.lag else 1)
    learner, actor = of["learner"] + buffers, of["actor"]
    kept = design.actors * design.envs * costs.snapshot * (design.lag + 2)
    driver = of["driver"] + kept + of["channel"] + design.shards * of["shard"] + store
    driver += 0 if design.actors_per_node else design.actors * actor
    driver += 0 if design.learners_per_node else design.learners * learner
    per_node = min(design.actors, design.actors_per_node), min(design.learners, design.learners_per_node)
    return Memory(driver, per_node[0] * actor or None, per_node[1] * learner or None)


def impossible(design: Design, taken: Memory, room: float) -> Iterator[str]:
    """Why a design cannot run at all, each with what to change.

    Args:
        design: of the run.
        taken: of each node's memory.
        room: bytes of memory that a node has; 0: nobody said.
    """
    knobs = {
        "driver's": "fewer actors with more environments each, since every actor has segments of its own there",
        "actors'": "lower --actors-per-node",
        "learners'": "lower --learners-per-node",
    }
    for (kind, knob), size in zip(knobs.items(), (taken.driver, taken.actors, taken.learners), strict=True):
        if room and size and size > room:
            node = "the driver's" if kind == "driver's" else f"an {kind}" if kind[0] == "a" else f"a {kind}"
            yield f"{node} node wants {size / 1e9:,.0f} GB of memory and has {room / 1e9:,.0f}: {knob}"


def limits(costs: Costs, design: Design, forecast: Forecast) -> list[Change]:
    """What would make a run faster, the best first: each is tried by itself in the model."""
    steps = max(2, min(30, BLOCKS // 4 // design.actors))
    speed = Simulation(costs, design).forecast(steps=steps).speed
    found = [
        replace(change, gain=Simulation(*changed()).forecast(steps=steps).speed / speed - 1)
        for change, changed in _changes(costs, design, forecast)
    ]
    return sorted((each for each in found if each.gain > WORTH), key=lambda each: -each.gain)


Tried = tuple[Change, Callable[[], tuple[Costs, Design]]]


def _changes(costs: Costs, design: Design, forecast: Forecast) -> Iterator[Tried]:
    """Those that may help: what is hardly used is not worth a try."""
    busy = forecast.busy
    yield (
        Change("actors", "a policy and environments of half the time"),
        lambda: (_half_acting(costs), design),
    )
    yield (
        Change("learners", f"learners twice as fast (a GPU; --learner-speed {design.learner_speed * 2:g})"),
        lambda: (costs, replace(design, learner_speed=design.learner_speed * 2)),
    )
    if design.lag == 0:
        yield Change("turns", "--topology.max-version-lag 1"), lambda: (costs, replace(design, lag=1))
    if busy["cores"] > 0.3:
        cores = design.cores * 2
        yield (
            Change("cores", f"nodes of more cores (--cores {cores})"),
            lambda: (costs, replace(design, cores=cores)),
        )
    yield from _servers(costs, design, busy)


def _servers(costs: Costs, design: Design, busy: dict[str, float]) -> Iterator[Tried]:
    """Those who serve all others."""
    if busy["driver"] > 0.1:
        faster = replace(costs, report=costs.report / 2, look=costs.look / 2, advance=costs.advance / 2)
        knob = "a driver that handles reports in half the time (longer blocks: --rows; more --envs-per-actor)"
        yield Change("driver", knob), lambda: (faster, design)
    if busy["channel"] > 0.1:
        faster_channel = replace(costs, read=costs.read / 2, publish=costs.publish / 2)
        knob = "a weight channel that answers in half the time (more --envs-per-actor)"
        yield Change("channel", knob), lambda: (faster_channel, design)
    if busy["shards"] > 0.1 and design.actors % (2 * design.shards) == 0:
        shards = design.shards * 2
        yield Change("shards", f"--shards {shards}"), lambda: (costs, replace(design, shards=shards))
    if busy["network"] > 0.05:
        wider = replace(design, bandwidth=design.bandwidth * 2)
        yield Change("network", f"--gbps {wider.bandwidth * 8 / 1e9:g}"), lambda: (costs, wider)


def verdict(forecast: Forecast, changes: list[Change]) -> str:
    """What limits a run, in a few words."""
    parts = [change.part for change in changes if change.part != "turns"]
    busiest = parts[0] if parts else max(forecast.busy, key=lambda part: forecast.busy[part])
    share = f"{busiest}, busy {forecast.busy[busiest]:.0%} of the time"
    if not changes:
        return f"nothing that could be changed limits it; most used are the {share}"
    if changes[0].part == "turns":
        return f"actors and learners take turns, and wait for each other; next are the {share}"
    return f"first are the {share}"


def _half_acting(costs: Costs) -> Costs:
    work, rest, aside = (_half(line) for line in (costs.act_work, costs.act_rest, costs.act_aside))
    return replace(costs, act_work=work, act_rest=rest, act_aside=aside)


def _half(line: Line) -> Line:
    return Line(line.fixed / 2, line.each / 2)
