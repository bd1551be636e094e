"""Learning curves of several arms over seeds: runs what is missing, prints a table, draws a plot.

python -m benchmarks.curves breakout --folder runs/breakout --parallel 2
python -m benchmarks.curves precision --folder runs/breakout --parallel 2
python -m benchmarks.curves control --folder runs/control --parallel 2

A run that is there already is not repeated, so figures can share runs. Each run is one process without Ray, so that
several fill the cores; at lag 0 that changes nothing in what is learned. The seeds were fixed before the first run.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from actors.environments import Environment
from actors.evaluator import evaluate
from actors.policy import RandomPolicy
from cluster.experiment import Spaces
from cluster.metrics import read_metrics

SEEDS = (11, 12, 13)
RETURN = "rollout/ep_rew_mean"
LOCAL = ("--topology.local", "--topology.actors", "1")
ATARI = ("curl_ppo", *LOCAL, "--steps", "150000")
SHORT = ("curl_ppo", *LOCAL, "--contrast", "0", "--steps", "50000")


@dataclass(frozen=True)
class Figure:
    """What a figure compares.

    Attributes:
        title: over the plot.
        environment: whose random policy is the base line; empty: none.
        arms: flags of `contrail train` by the arm's name.
        steps: env steps shown.
        seeds: of the runs of each arm.
    """

    title: str
    environment: str
    arms: Mapping[str, tuple[str, ...]]
    steps: int
    seeds: tuple[int, ...] = SEEDS


FIGURES = {
    "breakout": Figure(
        "ALE/Breakout-v5: PPO with and without CURL",
        "ALE/Breakout-v5",
        {
            "curl": ATARI,
            "ppo": (*ATARI, "--contrast", "0"),
            "crop": (*ATARI, "--contrast", "0", "--augment-policy"),
        },
        150_000,
    ),
    "precision": Figure(
        "ALE/Breakout-v5: plain PPO in bf16 and in fp32",
        "ALE/Breakout-v5",
        {"ppo": (*ATARI, "--contrast", "0"), "fp32": (*SHORT, "--precision", "fp32")},
        50_000,
    ),
    "control": Figure(
        "Hopper-v5: PPO with normalised observations and rewards",
        "Hopper-v5",
        {
            "hopper": (
                *("ppo", *LOCAL, "--env", "Hopper-v5", "--normalise", "--gamma", "0.99", "--lam", "0.95"),
                *("--lr", "3e-4", "--envs", "8", "--rows", "256", "--epochs", "10", "--minibatches", "32"),
                *("--steps", "400000", "--no-anneal"),
            )
        },
        400_000,
        seeds=(11, 12),
    ),
}


def main(
    figure: tyro.conf.Positional[Literal["breakout", "precision", "control"]],
    *,
    folder: Path = Path("runs/curves"),
    parallel: int = 1,
    plot: Path | None = None,
) -> None:
    """Run, tabulate and draw.

    Args:
        figure: which one.
        folder: where the runs are kept.
        parallel: runs at a time.
        plot: PNG to write; none: only the table.
    """
    wanted = FIGURES[figure]
    missing = [(arm, seed) for arm in wanted.arms for seed in wanted.seeds if not _finished(folder / f"{arm}-{seed}")]
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda run: _train(wanted.arms[run[0]], folder, *run), missing))
    curves = {arm: [_curve(folder / f"{arm}-{seed}") for seed in wanted.seeds] for arm in wanted.arms}
    base = random_return(wanted.environment)
    print(table(wanted, folder, curves, base))
    if plot is not None:
        draw(wanted, curves, base, plot)


def _finished(run: Path) -> bool:
    lines = run / "metrics.jsonl"
    return lines.is_file() and any("eval/mean_reward" in json.loads(line) for line in lines.read_text().splitlines())


def _train(flags: tuple[str, ...], folder: Path, arm: str, seed: int) -> None:
    command = ["train", *flags, "--seed", str(seed), "--run.folder", str(folder), "--run.name", f"{arm}-{seed}"]
    program = [sys.executable, "-c", "from cluster.cli import main; main()"]
    subprocess.run([*program, *command], check=True, stdout=subprocess.DEVNULL)


def _curve(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Env steps and mean training return of the last 100 episodes."""
    lines = [line for line in read_metrics(run) if RETURN in line]
    return np.array([line["step"] for line in lines]), np.array([line[RETURN] for line in lines])


def random_return(environment: str, episodes: int = 100) -> float:
    """Mean return of uniform actions."""
    spec = Environment(environment)
    policy = RandomPolicy(Spaces.of(spec).action)
    played = evaluate(policy, spec, episodes=episodes, seed=0, count=10, max_steps=5_000, greedy=False)
    return float(np.mean([episode.total for episode in played]))


def table(figure: Figure, folder: Path, curves: Mapping[str, list[tuple[np.ndarray, np.ndarray]]], base: float) -> str:
    """Training return at the figure's last step and the closing greedy evaluation, by seed, in Markdown."""
    head = f"| arm | training return at {figure.steps:,} env steps, by seed | mean | greedy evaluation |"
    lines = [head, "|---|---|---|---|"]
    for arm, seeds in curves.items():
        last = [float(np.interp(figure.steps, steps, returns)) for steps, returns in seeds]
        greedy = [_greedy(folder / f"{arm}-{seed}") for seed in figure.seeds]
        each = ", ".join(f"{value:.2f}" for value in last)
        lines.append(f"| {arm} | {each} | {np.mean(last):.2f} | {', '.join(f'{value:.1f}' for value in greedy)} |")
    return "\n".join([*lines, f"| random policy | | {base:.2f} | |"])


def _greedy(run: Path) -> float:
    return next(line["eval/mean_reward"] for line in read_metrics(run) if "eval/mean_reward" in line)


def draw(figure: Figure, curves: Mapping[str, list[tuple[np.ndarray, np.ndarray]]], base: float, path: Path) -> None:
    """One line per arm, the mean over seeds, between the lowest and the highest seed."""
    from matplotlib import pyplot

    grid = np.linspace(0, figure.steps, 200)
    canvas, axes = pyplot.subplots(figsize=(7, 4))
    for arm, seeds in curves.items():
        first = max(steps[0] for steps, _ in seeds)
        rows = np.stack([np.interp(grid[grid >= first], steps, returns) for steps, returns in seeds])
        (line,) = axes.plot(grid[grid >= first], rows.mean(0), label=arm)
        axes.fill_between(grid[grid >= first], rows.min(0), rows.max(0), color=line.get_color(), alpha=0.2)
    axes.axhline(base, color="grey", linestyle=":", label="random policy")
    axes.set(title=figure.title, xlabel="agent steps", ylabel="return, mean of the last 100 training episodes")
    axes.legend()
    canvas.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=130)


if __name__ == "__main__":
    tyro.cli(main)
