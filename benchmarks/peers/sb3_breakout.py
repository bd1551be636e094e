"""Stable-Baselines3's PPO on Breakout: agent steps a second. Runs where only SB3 is installed; imports none of ours."""

import argparse
import json
import time

import ale_py
import gymnasium
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

ENVS, ROWS = 8, 128


class RolloutClock(BaseCallback):
    """When each collection of rows began: the time between two is one whole iteration, acting and learning."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[float] = []

    def _on_rollout_start(self) -> None:
        self.starts.append(time.perf_counter())

    def _on_step(self) -> bool:
        return True


def steps_per_second(iterations: int, *, threads: int) -> float:
    """Speed over some iterations, after one that warms up and is not counted."""
    torch.set_num_threads(threads)
    gymnasium.register_envs(ale_py)
    envs = make_atari_env("BreakoutNoFrameskip-v4", n_envs=ENVS, seed=0, vec_env_cls=DummyVecEnv)
    algorithm = PPO(
        "CnnPolicy",
        VecFrameStack(envs, n_stack=4),
        n_steps=ROWS,
        batch_size=256,
        n_epochs=4,
        learning_rate=2.5e-4,
        clip_range=0.1,
        ent_coef=0.01,
        device="cpu",
        seed=0,
    )
    clock = RolloutClock()
    algorithm.learn(total_timesteps=(iterations + 1) * ENVS * ROWS, callback=clock)
    finished = time.perf_counter()
    envs.close()
    return iterations * ENVS * ROWS / (finished - clock.starts[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=4, help="counted iterations of 8 x 128 steps")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps({"steps_per_second": steps_per_second(arguments.iterations, threads=arguments.threads)}))
