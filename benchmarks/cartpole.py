"""CartPole from process start: seconds to the first learner step, steps and seconds to a mean return of 475.

python -m benchmarks.cartpole --seeds 1 2 3
python -m benchmarks.cartpole --peers sb3 rllib torchrl tianshou cleanrl --flags=--topology.local

One run after another, each a fresh `contrail train ppo` with its own embedded Ray, and after it one of each peer, which
ends where it has the return. One JSON line for each run, and one with the medians of the peers' seconds divided by
ours. All have the settings of `benchmarks.settings`, which are those of the recipe.
"""

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import tyro

from benchmarks.peer import PEERS, Peer, interpreter
from benchmarks.settings import told
from benchmarks.throughput.tasks import SCRIPTS
from benchmarks.timed import timed
from cluster.metrics import read_metrics

SOLVED, EPISODES = 475.0, 100
Figures = dict[str, float | None]


def main(
    *,
    seeds: tuple[int, ...] = (1, 2, 3),
    flags: tuple[str, ...] = (),
    peers: tuple[Peer, ...] = (),
    peers_folder: Path = PEERS,
) -> None:
    """Run and report.

    Args:
        seeds: of the runs.
        flags: further ones for `contrail train ppo`, e.g. --flags=--topology.local
        peers: that run in turns with ours.
        peers_folder: of their virtual environments, which are made the first time.
    """
    pythons = {peer: interpreter(peer, peers_folder) for peer in peers}
    found: dict[str, list[Figures]] = {name: [] for name in ("ours", *peers)}
    for seed in seeds:
        for system, runs in found.items():
            if system == "ours":
                with tempfile.TemporaryDirectory() as folder:
                    runs.append(measure(seed, Path(folder), flags))
            else:
                runs.append(measure_peer(pythons[system], SCRIPTS / f"{system}_speed.py", seed))
            print(json.dumps({"system": system, "seed": seed} | runs[-1]), flush=True)
    if peers:
        print(json.dumps({"benchmark": "cartpole to 475, peer / ours", "ratios": ratios(found)}))


def ratios(found: Mapping[str, Sequence[Figures]]) -> Figures:
    """The median of each peer's seconds to 475 divided by ours; None where one of the two did not get there."""
    medians = {
        name: statistics.median(math.inf if run["seconds_to_475"] is None else run["seconds_to_475"] for run in runs)
        for name, runs in found.items()
    }
    ours = medians.pop("ours")
    return {
        name: round(one / ours, 2) if math.isfinite(one) and math.isfinite(ours) else None
        for name, one in medians.items()
    }


def measure(seed: int, folder: Path, flags: tuple[str, ...]) -> Figures:
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


def measure_peer(python: Path, script: Path, seed: int) -> Figures:
    """The same of a peer's run."""
    started = time.time()
    done = timed([python, script, json.dumps(told("cartpole", "ppo", seed)), "--until", str(SOLVED)])
    line = json.loads(done.output.splitlines()[-1])
    return {
        "seconds_to_first_step": round(line["first_step"] - started, 2),
        "steps_to_475": line["steps"] if line["solved"] else None,
        "seconds_to_475": round(line["solved"] - started, 2) if line["solved"] else None,
        "last_mean_return": round(line["mean_return"] or 0.0, 1),
        "steps_per_second": round(line["steps_per_second"]),
    }


if __name__ == "__main__":
    tyro.cli(main)
