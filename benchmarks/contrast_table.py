"""Results of runs that differ in arm and seed: what a run's metrics say, a table, a plot."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cluster.metrics import read_metrics

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantiles of Student's t, by degrees of freedom."""


def measured(folder: Path) -> dict[str, object]:
    """What a finished run's metrics say: the greedy evaluation, the last tenth of training, twenty points between."""
    lines = read_metrics(folder)
    trained = [line for line in lines if "rollout/ep_rew_mean" in line]
    steps = np.array([line["step"] for line in trained])
    returns = np.array([line["rollout/ep_rew_mean"] for line in trained])
    places = np.linspace(steps[-1] / 20, steps[-1], 20)
    curve = [round(float(value), 3) for value in np.interp(places, steps, returns)]
    return {
        "env_steps": int(steps[-1]),
        "evaluation": next(line["eval/mean_reward"] for line in lines if "eval/mean_reward" in line),
        "training": round(float(returns[steps > 0.9 * steps[-1]].mean()), 4),
        "curve": curve,
        "weights": trained[-1].get("facts/weights_crc"),
    }


def interval(values: Sequence[float]) -> str:
    """Mean and half the width of its 95 % interval, by Student's t over the seeds."""
    mean = f"{np.mean(values):.3f}"
    if len(values) < 2:
        return mean
    return f"{mean} +- {STUDENT[len(values) - 1] * np.std(values, ddof=1) / math.sqrt(len(values)):.3f}"


def grouped(results: Sequence[dict]) -> dict[tuple[str, int, int, str], list[dict]]:
    """Runs that differ by their seed only, by task, static, steps and arm."""
    groups: dict[tuple[str, int, int, str], list[dict]] = {}
    for result in results:
        groups.setdefault((result["task"], result["static"], result["steps"], result["arm"]), []).append(result)
    return groups


def markdown(results: Sequence[dict], titles: Mapping[str, str]) -> str:
    """A row for each arm: evaluation with its interval and by seed, the end of training, steps and seconds.

    Args:
        results: of runs; where they are of several tasks, a first column names the task.
        titles: of arms, by name.
    """
    several = len({result["task"] for result in results}) > 1
    head = ["arm", "static", "evaluation, mean and 95 % interval", "by seed", "end of training"]
    head = ["task"] * several + head + ["env steps", "CPU s", "wall s"]
    rows = []
    for (task, static, _, arm), runs in grouped(results).items():
        columns = {name: [run[name] for run in runs] for name in runs[0]}
        seconds = [f"{np.median(columns[name]):.0f}" for name in ("cpu_seconds", "wall_seconds")]
        rows.append(
            [
                *[task] * several,
                titles[arm],
                str(static),
                interval(columns["evaluation"]),
                ", ".join(f"{value:.2f}" for value in columns["evaluation"]),
                interval(columns["training"]),
                f"{max(columns['env_steps']):,}",
                *seconds,
            ]
        )
    first, *others = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([first, "|" + "---|" * len(head), *others])


def draw(results: Sequence[dict], titles: Mapping[str, str], *, title: str, chance: float, path: Path) -> None:
    """Training return against env steps: one line per arm, the mean over seeds, between the lowest and the highest.

    Args:
        results: of runs on one task.
        titles: of arms, by name.
        title: over the plot.
        chance: return of a random policy.
        path: PNG to write.
    """
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(8, 4.5))
    for (*_, arm), runs in grouped(results).items():
        curves = np.array([run["curve"] for run in runs])
        steps = np.linspace(1 / 20, 1, 20) * runs[0]["env_steps"]
        (line,) = axes.plot(steps, curves.mean(0), label=titles[arm])
        axes.fill_between(steps, curves.min(0), curves.max(0), color=line.get_color(), alpha=0.15)
    axes.axhline(chance, color="grey", linestyle=":", label="random policy")
    axes.set(title=title, xlabel="env steps", ylabel="return, mean of the last 100 training episodes")
    axes.legend(fontsize="x-small")
    canvas.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=130)
