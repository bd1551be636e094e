"""CartPole from process start: seconds to the first learner step, steps and seconds to a mean return of 475.

python -m benchmarks.cartpole --seeds 1 2 3

One run after another, each a fresh `contrail train ppo` with its own embedded Ray. One JSON line per seed.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from cluster.metrics import read_metrics

SOLVED, EPISODES = 475.0, 100


def main(*, seeds: tuple[int, ...] = (1, 2, 3), flags: tuple[str, ...] = ()) -> None:
    """Run and report.

    Args:
        seeds: of the runs.
        flags: further ones for `contrail train ppo`, e.g. --flags=--topology.local
    """
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"seed": seed} | measure(seed, Path(folder), flags)), flush=True)


def measure(seed: int, folder: Path, flags: tuple[str, ...]) -> dict[str, float | None]:
    """One run's figures; None for the solving ones if it was not solved."""
    command = ["train", "ppo", "--seed", str(seed), "--run.folder", str(folder), "--run.name", "run", *flags]
    started = time.time()
    program = [sys.executable, "-c", "from cluster.cli import main; main()"]
    subprocess.run([*program, *command], check=True, stdout=subprocess.DEVNULL)
    lines = [line for line in read_metrics(folder / "run") if "train/version" in line]
    solved = [
        line
        for line in lines
        if line.get("rollout/ep_rew_mean", 0) >= SOLVED and line.get("rollout/episodes", 0) >= EPISODES
    ]
    return {
        "seconds_to_first_step": round(lines[0]["time"] - started, 2),
        "steps_to_475": solved[0]["step"] if solved else None,
        "seconds_to_475": round(solved[0]["time"] - started, 2) if solved else None,
        "last_mean_return": round(lines[-1]["rollout/ep_rew_mean"], 1),
        "steps_per_second": round(lines[-1]["time/fps"]),
    }


if __name__ == "__main__":
    tyro.cli(main)
