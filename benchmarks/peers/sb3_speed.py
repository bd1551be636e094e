"""Stable-Baselines3 or sb3-contrib on a task of `benchmarks.settings`: agent steps a second. Imports none of ours."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the environments of benchmarks/

from benchmarks.peers.clock import asked
from benchmarks.peers.sb3_clock import RolloutClock
from benchmarks.peers.sb3_train import algorithm, vectorised


def main() -> None:
    """Train as the command line says."""
    run, clock = asked(__doc__)
    torch.set_num_threads(1)
    learner = algorithm(run, vectorised(run, training=True))
    learner.learn(total_timesteps=clock.steps, callback=RolloutClock(clock))
    print(clock.told())


if __name__ == "__main__":
    main()
