"""What `contrail plan` foretells beside what runs then do: the error of each, from costs of one and two actors.

python -m benchmarks.plan

Three cases: CartPole, where two cores are soon too few, in turns and with a version of lag; and an environment that
waits 2 ms in every step, where time goes by without a processor. For each, `contrail plan` measures costs (runs of one
and two actors) and foretells runs of 1, 2, 4 and 8 actors; `contrail train` makes them, each in a process of its own.
A run's speed is that of its learner steps after the first fifth. Repeats come one after another over all numbers of
actors, so that a machine's drift falls on all alike. Tables are printed; their lines go to `results.jsonl` in the
report's folder, beside each case's costs, for `contrail plan --from`.
"""

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.lines import leave
from benchmarks.timed import CONTRAIL, timed
from cluster.plan import Planner
from cluster.plan_costs import Costs
from cluster.plan_runs import seen_in

CASES: Mapping[str, Sequence[str]] = {
    "turns": ["--env", "CartPole-v1"],
    "waits": ["--env", "benchmarks.dozing:DozingCartPole-v0"],
    "lag": ["--env", "CartPole-v1", "--topology.max-version-lag", "1"],
}
LEAST_LEARNER_STEPS = 15


def compare(
    *,
    actors: tuple[int, ...] = (1, 2, 4, 8),
    seconds: float = 12.0,
    repeats: int = 1,
    report: Path = Path("docs/results/plan"),
) -> None:
    """Plan, run, compare.

    Args:
        actors: numbers of them.
        seconds: that a run should take, by its plan, beside its start.
        repeats: of each run; medians are compared.
        report: folder for `results.jsonl`.
    """
    report.mkdir(parents=True, exist_ok=True)
    for case, flags in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            lines = measured(flags, actors, seconds, repeats, Path(folder), report.resolve() / f"{case}.json")
        print(f"\n{case}\n\n| actors | planned | measured | error |\n|--:|--:|--:|--:|")
        for line in lines:
            leave(report, {"case": case, **line})
            print("| {actors} | {planned:,.0f} | {speed:,.0f} | {error:+.1%} |".format(**line), flush=True)


def measured(
    flags: Sequence[str], actors: Sequence[int], seconds: float, repeats: int, folder: Path, costs: Path
) -> list[dict[str, Any]]:
    """A line for each number of actors; the costs are left in a file."""
    timed([*CONTRAIL, "plan", "ppo", *flags, "--actors", "1", "--save", str(costs)])
    planner = Planner.of("ppo", [*flags, "--from", str(costs)])
    planned = {count: planner.plan(Costs.load(costs), count).forecast for count in actors}
    speeds: dict[int, list[float]] = {count: [] for count in actors}
    for repeat in range(repeats):
        for count in actors:
            learner_steps = max(LEAST_LEARNER_STEPS, seconds / planned[count].step)
            steps = int(learner_steps * planned[count].speed * planned[count].step)
            run = folder / f"{count}-{repeat}"
            sizes = ["--envs", str(count * planner.envs), "--topology.actors", str(count), "--steps", str(steps)]
            timed([*CONTRAIL, "train", "ppo", *flags, *sizes, "--run.name", str(run)])
            seen = seen_in(run)
            speeds[count].append(seen.decisions / seen.step)
    lines = []
    for count in actors:
        speed, plan = statistics.median(speeds[count]), planned[count].speed
        lines.append(
            {"actors": count, "planned": plan, "speed": speed, "speeds": speeds[count], "error": plan / speed - 1}
        )
    return lines


if __name__ == "__main__":
    tyro.cli(compare)
