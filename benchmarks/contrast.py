"""What a contrastive loss beside PPO is worth, with its controls: runs what is missing, prints a table, draws a plot.

python -m benchmarks.contrast jitter --parallel 2 --plot docs/images/jitter_code.png
python -m benchmarks.contrast recall --parallel 2
python -m benchmarks.contrast lock --parallel 2
python -m benchmarks.contrast navigation --parallel 2
python -m benchmarks.contrast maze --parallel 2
python -m benchmarks.contrast trust --parallel 2
python -m benchmarks.contrast sweep --parallel 2
python -m benchmarks.contrast long
python -m benchmarks.contrast tuning --parallel 2

Any single run is `contrail train benchmarks/contrast.py:control --task jitter --arm cpc --seed 11`. All arms have the
same network, batches, learning rate (but where the arm's name says otherwise), gradient clipping and number of env
steps. The seeds were fixed before the first run. Each run is one process without Ray and one thread, so that several
fill the cores. A run leaves one JSON line, and a run whose line is there is not repeated.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from actors.environments import Environment
from benchmarks.contrast_arms import ARMS, SHIFT, TABLE, TASKS, TRUST, TUNING, TaskName, curl
from benchmarks.contrast_table import draw, markdown, measured
from benchmarks.lines import finished, leave
from benchmarks.timed import CONTRAIL, timed
from cluster.experiment import Experiment, Topology
from learners.augment import RandomShift
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import SmallConv
from learners.objective import Objective, Sum
from learners.objectives.ppo import PPO
from learners.objectives.trpo import Critic, Surrogate
from learners.trust_region import TrustRegion
from learners.update import Average
from replay.table import Table

SEEDS = (11, 12, 13, 14, 15)
EPISODES = 500
"""Greedy ones after training, with seeds of their own."""
ENVS, ROWS = 64, 32


def control(
    *,
    task: TaskName = "jitter",
    arm: str = "ppo",
    static: int = -1,
    steps: int = 0,
    seed: int = 11,
    topology: Topology = Topology(actors=1, learners=1, local=True),
) -> Experiment:
    """One run of the control table (docs/results/contrast.md).

    Args:
        task: which environment.
        arm: what is added to PPO, one of `ARMS`.
        static: largest value of a pixel of static; -1: the task's own.
        steps: env steps; 0: the task's own.
        seed: root of every random number.
        topology: where it runs.
    """
    if arm not in ARMS:
        raise ValueError(f"arm {arm!r}: wanted one of {', '.join(ARMS)}")
    on = TASKS[task]
    chosen = ARMS[arm]
    policy = (0.5, Critic()) if chosen.trust else (1.0, PPO(entropy=0.01))
    objective = Sum({"policy": policy} | dict(chosen.objectives))
    objectives: dict[str, Objective] = {"fresh": objective}
    tables = {"fresh": Table(batch=ENVS, window=ROWS + 1, stride=ROWS, max_lag=topology.max_version_lag)}
    if chosen.history:
        objectives["history"] = Sum(curl(chosen.objectives["curl"][0], group="history"))
        tables["history"] = Table(batch=ENVS * ROWS // 2, select="uniform", capacity=chosen.history)
    gradient = Gradient(
        objectives,
        lr=chosen.lr,
        epochs=chosen.epochs,
        augment=RandomShift(SHIFT) if chosen.crop else None,
        then=tuple(Average(part, 0.05) for part in objective.slow),
    )
    return Experiment(
        environment=Environment(on.id, {"static": on.static if static < 0 else static}),
        model=ActorCritic(
            encoder=SmallConv(),
            core=on.core,
            value_encoder=SmallConv() if chosen.trust else None,
            record_distribution=chosen.trust,
        ),
        tables=tables,
        updates=(gradient, TrustRegion({"fresh": Surrogate()})) if chosen.trust else (gradient,),
        envs=ENVS,
        rows=ROWS,
        steps=steps or on.steps,
        seed=seed,
        topology=topology,
        evaluation_episodes=EPISODES,
    )


@dataclass(frozen=True)
class Run:
    """One run of a table."""

    task: TaskName
    arm: str
    seed: int
    static: int
    steps: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.task}-{self.static}-{self.steps}-{self.arm}-{self.seed}"

    def flags(self) -> list[str]:
        """Of `contrail train`."""
        own = {"task": self.task, "arm": self.arm, "static": self.static, "steps": self.steps, "seed": self.seed}
        return [text for name, value in own.items() for text in (f"--{name}", str(value))]


def runs_of(
    task: TaskName, arms: Sequence[str], seeds: Sequence[int] = SEEDS, static: int = -1, steps: int = 0
) -> list[Run]:
    """Every arm with every seed, seed by seed, so that a table fills evenly."""
    on = TASKS[task]
    static, steps = on.static if static < 0 else static, steps or on.steps
    return [Run(task, arm, seed, static, steps) for seed in seeds for arm in arms]


COMPARED = ("ppo-lr-2e-3", "crop", "crop+curl", "curl-weight-0.1", "cpc", "curl-shuffled", "cpc-shuffled")
"""Arms on all tasks but JitterCode, which has every one."""
TUNED = ("ppo", "ppo-8-epochs", "ppo-lr-2e-3", "curl", "curl-weight-0.1", "cpc", *TUNING)
SWEPT = ("ppo-lr-2e-3", "curl-weight-0.1", "cpc")
"""The best of each on JitterCode."""
TABLES = {
    "jitter": runs_of("jitter", list(TABLE)),
    "recall": runs_of("recall", COMPARED),
    "lock": runs_of("lock", COMPARED),
    "navigation": runs_of("navigation", COMPARED),
    "maze": runs_of("maze", COMPARED),
    "trust": [run for task in ("jitter", "recall", "lock") for run in runs_of(task, list(TRUST))],
    "sweep": [run for static in (0, 40, 80, 120) for run in runs_of("jitter", SWEPT, SEEDS[:3], static=static)],
    "long": runs_of("jitter", [SWEPT[0]], SEEDS[:1], steps=800_000),
    "tuning": runs_of("jitter", TUNED, (1,)),
}


def main(
    table: tyro.conf.Positional[TaskName | Literal["trust", "sweep", "long", "tuning"]],
    *,
    folder: Path = Path("runs/contrast"),
    parallel: int = 1,
    train: bool = True,
    plot: Path | None = None,
) -> None:
    """Run what is missing, tabulate and draw.

    Args:
        table: which one.
        folder: where the runs and their lines are kept.
        parallel: runs at a time.
        train: run what is missing; without, tabulate what is there.
        plot: PNG to write; none: only the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = finished(folder, Run)
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda run: execute(run, folder), [run for run in TABLES[table] if train and run not in done]))
    done = finished(folder, Run)
    results = [done[run] for run in TABLES[table] if run in done]
    titles = {name: arm.title for name, arm in ARMS.items()}
    print(markdown(results, titles))
    if plot is not None and results:
        task = TASKS[results[0]["task"]]
        draw(results, titles, title=task.id, chance=task.chance, path=plot)


def execute(run: Run, folder: Path) -> None:
    """Train and evaluate; leaves the run's line in `results.jsonl`."""
    shutil.rmtree(folder / run.name, ignore_errors=True)  # of a run that did not come to its end
    place = ["--run.folder", str(folder.resolve()), "--run.name", run.name, "--run.rows", "none"]
    done = timed([*CONTRAIL, "train", f"{__file__}:control", *run.flags(), *place])
    result = vars(run) | measured(folder / run.name) | {"wall_seconds": done.wall, "cpu_seconds": done.cpu}
    leave(folder, result)


if __name__ == "__main__":
    tyro.cli(main)
