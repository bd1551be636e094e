"""Stable-Baselines3's PPO on Breakout: agent steps a second. Runs where only SB3 is installed; imports none of ours."""

import argparse
import sys
from pathlib import Path

import ale_py
import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers.clock import Clock
from benchmarks.peers.sb3_clock import RolloutClock


def measured(iterations: int, *, threads: int, count: int, rows: int) -> str:
    """The clock's line over some iterations, after one that warms up and is not counted."""
    torch.set_num_threads(threads)
    gymnasium.register_envs(ale_py)
    envs = make_atari_env("BreakoutNoFrameskip-v4", n_envs=count, seed=0, vec_env_cls=DummyVecEnv)
    algorithm = PPO(
        "CnnPolicy",
        VecFrameStack(envs, n_stack=4),
        n_steps=rows,
        batch_size=256,
        n_epochs=4,
        learning_rate=2.5e-4,
        clip_range=0.1,
        ent_coef=0.01,
        device="cpu",
        seed=0,
    )
    clock = Clock((iterations + 1) * count * rows, warm_up=count * rows)
    algorithm.learn(total_timesteps=clock.steps, callback=RolloutClock(clock))
    envs.close()
    return clock.told()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=4, help="that are counted")
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--rows", type=int, default=128, help="of each environment between two learner steps")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    shape = {"threads": arguments.threads, "count": arguments.envs, "rows": arguments.rows}
    print(measured(arguments.iterations, **shape))
