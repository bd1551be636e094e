"""How plans are shown: a table with a column for each, what breaks first, and what was taken for granted."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from cluster.plan_advice import verdict
from cluster.plan_costs import UNDIVIDED, Costs

BUSY = {
    "actors": "actors busy",
    "learners": "learners busy",
    "shards": "shards busy",
    "channel": "weight channel busy",
    "driver": "driver busy",
    "cores": "cores of the driver's node",
    "network": "network, busiest node",
}
NODES = {"driver": "driver's node", "actors": "an actors' node", "learners": "a learners' node"}
FAR = 4
"""Times what was measured from which it is told that a plan lies far beyond."""


def show(console: Console, planner: Any, costs: Costs, plans: Sequence[Any]) -> None:
    """Print all there is to say of some plans.

    Args:
        console: where to.
        planner: a `cluster.plan.Planner`.
        costs: that the plans were made with.
        plans: `cluster.plan.Plan`s, at least one.
    """
    table = Table(title=f"{planner.recipe}, {planner.envs} environments an actor", title_justify="left")
    table.add_column("actors")
    for plan in plans:
        table.add_column(f"{plan.design.actors:,}", justify="right")
    for row in rows(plans):
        table.add_row(*row)
    console.print(table)
    for text in [line for plan in plans for line in told(plan)] + [""] + list(assumed(costs, plans)):
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def rows(plans: Sequence[Any]) -> Iterator[list[str]]:
    """The table's rows, a name and a cell for each plan."""

    def row(name: str, *cells: str) -> list[str]:
        return [name, *cells]

    yield row("nodes", *(f"{plan.design.nodes:,}" for plan in plans))
    yield row("env steps/s trained", *(f"{plan.forecast.speed:,.0f}" for plan in plans))
    yield row("a learner step", *(_seconds(plan.forecast.step) for plan in plans))
    yield row("policy lag, mean / p99", *(f"{p.forecast.lag:.2f} / {p.forecast.lag_p99:.0f}" for p in plans))
    for name, title in BUSY.items():
        yield row(title, *(f"{plan.forecast.busy[name]:.0%}" for plan in plans))
    for name, title in NODES.items():
        ways = [[plan.forecast.traffic.get(f"{name} {way}") for way in ("in", "out")] for plan in plans]
        if any(None not in pair for pair in ways):
            cells = ["" if None in pair else " / ".join(f"{each / 1e6:,.1f}" for each in pair) for pair in ways]
            yield row(f"MB/s in / out, {title}", *cells)
    for name, title in NODES.items():
        sizes = [getattr(plan.memory, name) for plan in plans]
        if any(sizes):
            yield row(f"GB of memory, {title}", *("" if size is None else f"{size / 1e9:,.1f}" for size in sizes))
    if plans[0].price is not None:
        yield row("price of 1e9 env steps", *(f"{plan.price:,.0f}" for plan in plans))


def told(plan: Any) -> Iterator[str]:
    """What breaks first, and what to change."""
    count = plan.design.actors
    yield f"\n{count:,} actor{'s' * (count > 1)}: {verdict(plan.forecast, plan.changes)}"
    for text in plan.impossible:
        yield f"  cannot be: {text}"
    for change in plan.changes[:3]:
        yield f"  {change}"


def assumed(costs: Costs, plans: Sequence[Any]) -> Iterator[str]:
    """What a reader must know before believing any of it."""
    where = f" on {costs.machine}" if costs.machine else ""
    off = "not known, since one run always fits" if costs.error is None else f"up to {costs.error:.0%}"
    yield f"Costs were measured{where}; how far the model is off on the runs that they come from: {off}."
    if not costs.parameters:
        yield "Nobody kept of which recipe and flags they are: only those are foretold."
    if costs.assumed:
        yield f"Not measured, but typical values: {', '.join(costs.assumed)}."
    if set(UNDIVIDED) & set(costs.assumed):
        yield "Nobody looked at processors: all the time of blocks and learner steps is taken to be computing."
    yield "Every node is taken to be as fast as this one, its network to be ours alone; deaths are not foreseen."
    last = max((plan.design for plan in plans), key=lambda design: design.actors)
    if last.nodes > 1:
        yield f"Network: {last.bandwidth * 8 / 1e9:g} Gbit/s and {last.latency * 1e3:g} ms, as told, not measured."
    rows, most = last.batch / last.learners, costs.rows[1]
    if rows > FAR * most:
        yield f"A learner has {rows:,.0f} rows a step there, {rows / most:,.0f} times the most that were measured."
    low, high = costs.envs
    if not low <= last.envs <= high:
        yield f"Actors of {low} to {high} environments were measured, not of {last.envs}."


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"
