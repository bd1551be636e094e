"""Stable-Baselines3 or sb3-contrib on a task of `benchmarks.settings`: agent steps a second. Imports none of ours."""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the environments of benchmarks/

from benchmarks.peers.sb3_clock import RolloutClock
from benchmarks.peers.sb3_train import algorithm, vectorised


def main() -> None:
    """Train for some iterations as the JSON argument says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=json.loads, help="the run, as JSON")
    parser.add_argument("--iterations", type=int, required=True, help="counted")
    parser.add_argument("--warm-up", type=int, required=True, help="iterations that come first")
    arguments = parser.parse_args()
    run, iterations, warm_up = arguments.run, arguments.iterations, arguments.warm_up
    torch.set_num_threads(1)
    learner, clock = algorithm(run, vectorised(run, training=True)), RolloutClock()
    learner.learn(total_timesteps=(iterations + warm_up) * run["envs"] * run["rows"], callback=clock)
    clock.note()
    wall, cpu = (after - before for before, after in zip(clock.starts[warm_up], clock.starts[-1], strict=True))
    steps = iterations * run["envs"] * run["rows"]
    print(json.dumps({"steps_per_second": steps / wall, "cpu_microseconds": 1e6 * cpu / steps}))


if __name__ == "__main__":
    main()
