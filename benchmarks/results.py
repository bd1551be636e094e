"""Methods beside Stable-Baselines3's and sb3-contrib's on the same tasks: runs what is missing, prints tables.

python -m benchmarks.results cartpole acrobot --parallel 2
python -m benchmarks.results --no-train --folder docs/results/methods        # the tables of docs/results/methods.md

Both systems get the same environment, settings and number of steps (`benchmarks.settings`), one process and one thread,
and the same network but for the memory: ours is a GRU behind a layer, the peer's an LSTM in front of one. What is not a
setting there is each system's own: the peer's PPO normalises advantages in each minibatch, ours in the whole batch; its
line search keeps TRPO's KL below the bound, ours below 1.5 times it; its critic of TRPO clips no gradient; its running
statistics of observations and rewards move at every step, ours at every learner step.

The seeds were fixed before the first run. A run is one JSON line in `results.jsonl`, and one whose line is
there is not repeated; the peer's run of a seed follows ours at once, so that both meet the same machine. Seconds are of
the whole process, start-up included, without the evaluation.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tyro

from benchmarks.lines import finished, leave
from benchmarks.peer import PEERS, interpreter
from benchmarks.results_table import markdown, speeds
from benchmarks.settings import METHODS, TASKS, Method, Name, Task, told
from benchmarks.timed import CONTRAIL, HOUSE, timed
from cluster.metrics import read_metrics

System = Literal["contrail", "sb3"]
SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Run:
    """One training run with its evaluation."""

    task: str
    method: Method
    system: System
    seed: int

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.task}-{self.method}-{self.system}-{self.seed}"


def runs_of(names: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Every method with every seed on these tasks, seed by seed; both systems, where the peer has the method."""
    return [
        Run(name, method, system, seed)
        for name in names
        for seed in seeds
        for method in METHODS
        for system in get_args(System)
        if system == "contrail" or has_peer(TASKS[name], method)
    ]


def has_peer(task: Task, method: Method) -> bool:
    """Whether sb3 or sb3-contrib has the method for the task's network; with a memory it has PPO alone."""
    return task.network != "memory" or method in ("ppo", "ppo-kl")


def main(
    tasks: tyro.conf.Positional[tuple[Name, ...]] = (),
    *,
    folder: Path = Path("runs/results"),
    seeds: tuple[int, ...] = SEEDS,
    parallel: int = 1,
    train: bool = True,
    peers_folder: Path = PEERS,
) -> None:
    """Run what is missing, and tabulate.

    Args:
        tasks: which; none given: all.
        folder: where the runs and their lines are kept.
        seeds: of each method.
        parallel: runs at a time, one core each.
        train: run what is missing; without, tabulate what is there.
        peers_folder: of the peers' virtual environment, which is made the first time.
    """
    wanted = runs_of(tasks or list(TASKS), seeds)
    folder.mkdir(parents=True, exist_ok=True)
    if train:
        peer = interpreter("sb3", peers_folder)
        done = finished(folder, Run)
        missing = [run for run in wanted if run not in done]
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda run: execute(run, folder, peer), missing))
    done = finished(folder, Run)
    results = [done[run] for run in wanted if run in done]
    print(f"{markdown(results)}\n\n{speeds(results)}")


def execute(run: Run, folder: Path, peer: Path) -> None:
    """Train and evaluate; leaves the run's line."""
    result = asdict(run) | (contrail(run, folder) if run.system == "contrail" else sb3(run, peer))
    leave(folder, result)
    print(f"{run.name}: {result['evaluation']:.1f}, {result['cpu_seconds']:.0f} s", file=sys.stderr, flush=True)


def contrail(run: Run, folder: Path) -> dict[str, object]:
    """Ours: `contrail train`, then `contrail evaluate`."""
    task, own = TASKS[run.task], folder.resolve() / run.name
    shutil.rmtree(own, ignore_errors=True)  # of a run that did not come to its end
    flags = ["--task", run.task, "--method", run.method, "--seed", str(run.seed)]
    place = ["--run.folder", str(own.parent), "--run.name", run.name, "--run.rows", "none"]
    trained = timed([*CONTRAIL, "train", f"{HOUSE / 'benchmarks' / 'compared.py'}:compared", *flags, *place])
    played = ["--episodes", str(task.episodes), *(["--sample"] if task.sampled else [])]
    timed([*CONTRAIL, "evaluate", str(own), *played])
    evaluation = json.loads((own / "evaluation.json").read_text())["eval/mean_reward"]
    return ended(own) | {
        "evaluation": evaluation,
        "wall_seconds": trained.wall,
        "cpu_seconds": trained.cpu,
    }


def ended(folder: Path) -> dict[str, object]:
    """Env steps of a run of ours, and the mean return of the last hundred training episodes in its last tenth."""
    lines = [line for line in read_metrics(folder) if "rollout/ep_rew_mean" in line]
    steps = int(lines[-1]["step"])
    returns = [line["rollout/ep_rew_mean"] for line in lines if line["step"] > 0.9 * steps]
    return {"env_steps": steps, "training": float(np.mean(returns))}


def sb3(run: Run, peer: Path) -> dict[str, object]:
    """The peer: one script, which says what its evaluation took."""
    about = json.dumps(told(run.task, run.method, run.seed))
    trained = timed([peer, HOUSE / "benchmarks" / "peers" / "sb3_train.py", about])
    result = json.loads(trained.output.splitlines()[-1])
    wall, cpu = (result.pop(f"evaluation_{clock}") for clock in ("wall", "cpu"))
    return result | {"wall_seconds": round(trained.wall - wall, 1), "cpu_seconds": round(trained.cpu - cpu, 1)}


if __name__ == "__main__":
    tyro.cli(main)
