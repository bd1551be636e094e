"""Tables of `benchmarks.results`: each method of ours beside the peer's, over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.contrast_table import interval
from benchmarks.settings import TASKS, TITLES

HEAD = "method | system | evaluation, mean and 95 % interval | by seed | end of training | env steps | CPU s | wall s"
STOPPED = "PPO, stopped by KL"
"""The nearest that the peer has to PPO with a KL penalty: the clip, and no more minibatches once the KL is large."""
SYSTEMS: Mapping[str, str] = {"contrail": "Contrail", "sb3": "SB3"}


def speeds(results: Sequence[Mapping]) -> str:
    """How many times as many processor seconds the peer took, by task and method; empty where only one was timed.

    Args:
        results: lines of runs; those without seconds count for nothing.
    """
    rows = [f"| task | {' | '.join(TITLES.values())} |", "|" + "---|" * (1 + len(TITLES))]
    for name, task in TASKS.items():
        of_task = [run for run in results if run["task"] == name]
        cells = [_ratio([run for run in of_task if run["method"] == method]) for method in TITLES]
        rows += [f"| {task.title} | {' | '.join(cells)} |"] if any(cells) else []
    return "\n".join(rows)


def _ratio(runs: Sequence[Mapping]) -> str:
    ours, peers = (_seconds([run for run in runs if run["system"] == system], "cpu_seconds") for system in SYSTEMS)
    return f"{peers / ours:.2f}" if ours and peers else ""


def _seconds(runs: Sequence[Mapping], clock: str) -> float:
    """Median over the runs that were timed; 0 without any."""
    timed = [run[clock] for run in runs if clock in run]
    return float(np.median(timed)) if timed else 0.0


def markdown(results: Sequence[Mapping]) -> str:
    """A table for each task: evaluations with their interval and by seed, the end of training, steps and seconds.

    Args:
        results: lines of runs.
    """
    return "\n\n".join(
        "\n".join([f"### {task.title}", "", *rows])
        for name, task in TASKS.items()
        if (rows := _rows([run for run in results if run["task"] == name]))
    )


def _rows(runs: Sequence[Mapping]) -> list[str]:
    groups: dict[tuple[str, str], list[Mapping]] = {}
    for run in runs:
        groups.setdefault((run["method"], run["system"]), []).append(run)
    rows = [_row(method, system, group) for (method, system), group in groups.items()]
    return [f"| {HEAD} |", "|" + "---|" * 8, *rows] if rows else []


def _row(method: str, system: str, runs: Sequence[Mapping]) -> str:
    columns = {name: [run[name] for run in runs] for name in ("evaluation", "training", "env_steps")}
    seconds = [f"{_seconds(runs, clock):.0f}" for clock in ("cpu_seconds", "wall_seconds")]
    title = STOPPED if (method, system) == ("ppo-kl", "sb3") else TITLES[method]
    cells = [
        title,
        SYSTEMS[system],
        interval(columns["evaluation"]),
        ", ".join(f"{value:.4g}" for value in columns["evaluation"]),
        interval(columns["training"]),
        f"{max(columns['env_steps']):,}",
        *seconds,
    ]
    return f"| {' | '.join(cells)} |"
