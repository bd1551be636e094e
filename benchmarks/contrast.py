"""What a contrastive loss beside PPO is worth, with its controls: runs what is missing, prints a table, draws a plot.

python -m benchmarks.contrast jitter --parallel 2 --plot docs/images/jitter_code.png
python -m benchmarks.contrast recall --parallel 2
python -m benchmarks.contrast lock --parallel 2
python -m benchmarks.contrast trust --parallel 2
python -m benchmarks.contrast sweep --parallel 2
python -m benchmarks.contrast long
python -m benchmarks.contrast tuning --parallel 2

Any single run is `contrail train benchmarks/contrast.py:control --task jitter --arm cpc --seed 11`. All arms have the
same network, batches, learning rate (but where the arm's name says otherwise), gradient clipping and number of env
steps. The seeds were fixed before the first run. Each run is one process without Ray and one thread, so that several
fill the cores. A run leaves one JSON line, and a run whose line is there is not repeated.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from actors.environments import Environment
from benchmarks.contrast_table import draw, markdown, measured
from cluster.experiment import Experiment, Topology
from learners.augment import RandomShift
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import SmallConv
from learners.objective import Objective, Sum
from learners.objectives.cpc import Cpc
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.objectives.trpo import Critic, Surrogate
from learners.trust_region import TrustRegion
from learners.update import Average
from replay.table import Table

SEEDS = (11, 12, 13, 14, 15)
EPISODES = 500
"""Greedy ones after training, with seeds of their own."""
SHIFT = 3
ENVS, ROWS = 64, 32


@dataclass(frozen=True)
class Task:
    """An environment, and what every arm has on it.

    Attributes:
        id: of the environment.
        static: its largest value of a pixel of static, if not told otherwise.
        steps: env steps of a run.
        core: of the model.
        chance: return of a random policy.
    """

    id: str
    static: int
    steps: int
    core: Gru | None
    chance: float


TASKS = {
    "jitter": Task("actors.envs:JitterCode-v0", 80, 80_000, None, 1 / 16),
    "recall": Task("actors.envs:StaticRecall-v0", 160, 100_000, Gru(64), 1 / 8),
    "lock": Task("actors.envs:StaticLock-v0", 80, 120_000, None, 0.11),
}


@dataclass(frozen=True)
class Arm:
    """What is trained.

    Attributes:
        title: its row in the table.
        objectives: added to PPO, with their weights.
        crop: whether PPO sees shifted frames instead of those that it acted on.
        lr: learning rate.
        epochs: passes over each batch.
        trust: TRPO in place of PPO: one trust-region step after the gradient steps of critic and contrast, and a critic
            with an encoder of its own.
        history: rows of the past that CURL is given, too, half as many in each step as are fresh; 0: none.
    """

    title: str
    objectives: Mapping[str, tuple[float, Objective]] = field(default_factory=dict)
    crop: bool = False
    lr: float = 1e-3
    epochs: int = 4
    trust: bool = False
    history: int = 0


def curl(weight: float = 0.3, *, shuffled: bool = False, group: str = "contrast") -> dict[str, tuple[float, Objective]]:
    """CURL beside PPO."""
    return {"curl": (weight, Curl(augment=RandomShift(SHIFT), shuffled=shuffled, group=group))}


def cpc(weight: float = 1.0, *, shuffled: bool = False) -> dict[str, tuple[float, Objective]]:
    """CPC beside PPO."""
    return {"cpc": (weight, Cpc(shuffled=shuffled))}


TABLE = {
    "ppo": Arm("PPO"),
    "ppo-8-epochs": Arm("PPO, 8 epochs", epochs=8),
    "ppo-lr-2e-3": Arm("PPO, learning rate 2e-3", lr=2e-3),
    "crop": Arm("PPO on shifted frames (crop only)", crop=True),
    "crop+curl": Arm("PPO on shifted frames, CURL", curl(), crop=True),
    "curl": Arm("PPO on raw frames, CURL", curl()),
    "curl-weight-0.1": Arm("PPO on raw frames, CURL of weight .1", curl(0.1)),
    "curl-history": Arm("PPO on raw frames, CURL of weight .1 on fresh rows and history", curl(0.1), history=50_000),
    "cpc": Arm("PPO, CPC", cpc()),
    "curl-shuffled": Arm("PPO, CURL, pairs shuffled", curl(shuffled=True)),
    "cpc-shuffled": Arm("PPO, CPC, pairs shuffled", cpc(shuffled=True)),
}
"""The control table's rows."""
TRUST = {
    "trpo": Arm("TRPO", trust=True),
    "trpo-curl": Arm("TRPO, CURL of weight .1", curl(0.1), trust=True),
    "trpo-cpc": Arm("TRPO, CPC", cpc(), trust=True),
    "trpo-curl-shuffled": Arm("TRPO, CURL of weight .1, pairs shuffled", curl(0.1, shuffled=True), trust=True),
    "trpo-cpc-shuffled": Arm("TRPO, CPC, pairs shuffled", cpc(shuffled=True), trust=True),
}
"""The same with TRPO."""
TUNING = {
    "curl-weight-1": Arm("PPO on raw frames, CURL of weight 1", curl(1.0)),
    "cpc-weight-0.3": Arm("PPO, CPC of weight .3", cpc(0.3)),
    "cpc-weight-3": Arm("PPO, CPC of weight 3", cpc(3.0)),
}
"""Beside those in the table: PPO, CURL and CPC were given three settings each, on seed 1."""
ARMS = TABLE | TRUST | TUNING
TUNED = ("ppo", "ppo-8-epochs", "ppo-lr-2e-3", "curl", "curl-weight-0.1", "cpc", *TUNING)
SWEPT = ("ppo-lr-2e-3", "curl-weight-0.1", "cpc")
"""The best of each on JitterCode."""


def control(
    *,
    task: Literal["jitter", "recall", "lock"] = "jitter",
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

    task: str
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
    task: str, arms: Sequence[str], seeds: Sequence[int] = SEEDS, static: int = -1, steps: int = 0
) -> list[Run]:
    """Every arm with every seed, seed by seed, so that a table fills evenly."""
    on = TASKS[task]
    static, steps = on.static if static < 0 else static, steps or on.steps
    return [Run(task, arm, seed, static, steps) for seed in seeds for arm in arms]


TABLES = {
    "jitter": runs_of("jitter", list(TABLE)),
    "recall": runs_of("recall", list(TABLE)),
    "lock": runs_of("lock", list(TABLE)),
    "trust": [run for task in TASKS for run in runs_of(task, list(TRUST))],
    "sweep": [run for static in (0, 40, 80, 120) for run in runs_of("jitter", SWEPT, SEEDS[:3], static=static)],
    "long": runs_of("jitter", [SWEPT[0]], SEEDS[:1], steps=800_000),
    "tuning": [run for task in TASKS for run in runs_of(task, [*TABLE, *TUNING], (1,)) if run.arm in TUNED],
}


def main(
    table: tyro.conf.Positional[Literal["jitter", "recall", "lock", "trust", "sweep", "long", "tuning"]],
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
    done = finished(folder)
    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda run: execute(run, folder), [run for run in TABLES[table] if train and run not in done]))
    done = finished(folder)
    results = [done[run] for run in TABLES[table] if run in done]
    titles = {name: arm.title for name, arm in ARMS.items()}
    print(markdown(results, titles))
    if plot is not None and results:
        task = TASKS[results[0]["task"]]
        draw(results, titles, title=task.id, chance=task.chance, path=plot)


def execute(run: Run, folder: Path) -> None:
    """Train and evaluate; leaves the run's line in `results.jsonl`."""
    command = ["train", f"{__file__}:control", *run.flags(), "--run.folder", str(folder), "--run.name", run.name]
    program = [sys.executable, "-c", "from cluster.cli import main; main()", *command, "--run.rows", "none"]
    started = time.time()
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{run.name} ended with {process.returncode}: see {folder / run.name / 'logs'}")
    result = vars(run) | measured(folder / run.name)
    result |= {"wall_seconds": round(time.time() - started, 1), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1)}
    with (folder / "results.jsonl").open("a") as lines:
        lines.write(json.dumps(result) + "\n")


def finished(folder: Path) -> dict[Run, dict]:
    """The lines of all runs that came to their end."""
    path = folder / "results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {Run(*(line[name] for name in Run.__dataclass_fields__)): line for line in lines}


if __name__ == "__main__":
    tyro.cli(main)
