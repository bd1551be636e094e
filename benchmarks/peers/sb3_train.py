"""One training run of Stable-Baselines3 or sb3-contrib, and its evaluation; prints one JSON line.

Runs where only these are installed; imports none of ours but the environments that need none of ours.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from sb3_contrib import TRPO, RecurrentPPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.atari_wrappers import FireResetEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize

LSTM = {"lstm_hidden_size": 64, "net_arch": [64], "enable_critic_lstm": False, "shared_lstm": True}
EVALUATION_SEED = 1_000_000
LONGEST = 2_000
"""Agent steps of an evaluated episode of Breakout, which else may wait for ever."""


class LastTenth(BaseCallback):
    """Mean returns of the last hundred training episodes, at every rollout's end in the last tenth of the steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.begin, self.returns = 0.9 * steps, []

    def _on_rollout_end(self) -> None:
        if self.num_timesteps > self.begin and self.model.ep_info_buffer:
            self.returns.append(np.mean([episode["r"] for episode in self.model.ep_info_buffer]))

    def _on_step(self) -> bool:
        return True


class Clipped(gymnasium.RewardWrapper):
    """Rewards within +-1, which is what learns; the monitor below it sees them whole."""

    def reward(self, reward: float) -> float:
        """The nearest in -1 to 1."""
        return float(np.clip(reward, -1, 1))


def environment(identity: str, kwargs: dict, *, training: bool) -> Callable[[], gymnasium.Env]:
    """Makes one: the same as Contrail's of this id."""
    if identity.startswith("ALE/"):
        return lambda: _atari(identity, kwargs, training=training)
    if identity == "actors.envs:CartPoleNoVelocity-v0":
        return _no_velocity
    return lambda: gymnasium.make(identity, **kwargs)


def _no_velocity() -> gymnasium.Env:
    whole = gymnasium.make("CartPole-v1")
    space = gymnasium.spaces.Box(whole.observation_space.low[[0, 2]], whole.observation_space.high[[0, 2]])
    return gymnasium.wrappers.TransformObservation(whole, lambda observation: observation[[0, 2]], space)


def _atari(identity: str, kwargs: dict, *, training: bool) -> gymnasium.Env:
    import ale_py

    gymnasium.register_envs(ale_py)
    raw = gymnasium.make(identity, frameskip=1, **kwargs)
    whole = FireResetEnv(gymnasium.wrappers.AtariPreprocessing(raw, noop_max=30, grayscale_newaxis=True))
    return whole if training else gymnasium.wrappers.TimeLimit(whole, LONGEST)


def vectorised(run: dict, *, training: bool) -> VecEnv:
    """The environments, stacked and normalised as the run wants them."""
    count, seed = (run["envs"], run["seed"]) if training else (10, EVALUATION_SEED + run["seed"])
    make = environment(run["environment"], run["kwargs"], training=training)
    # Around the monitor that `make_vec_env` adds, which would else report clipped returns.
    clipped = Clipped if training and run["network"] == "nature" else None
    envs = make_vec_env(make, n_envs=count, seed=seed, wrapper_class=clipped)
    if run["network"] == "nature":
        return VecFrameStack(envs, n_stack=4)
    if run["normalise"]:
        return VecNormalize(envs, gamma=run["gamma"], training=training, norm_reward=training)
    return envs


def algorithm(run: dict, envs: VecEnv) -> BaseAlgorithm:
    """The method with the run's settings."""
    lr = run["lr"]
    network = {"nature": {}, "mlp": {}, "memory": LSTM}[run["network"]]
    if (run["method"], run["network"]) == ("trpo", "nature"):  # else the critic has no features that it could move
        network = network | {"share_features_extractor": False}
    policy = {"nature": "CnnPolicy", "mlp": "MlpPolicy", "memory": "MlpLstmPolicy"}[run["network"]]
    shared = {
        "learning_rate": (lambda left: lr * left) if run["anneal"] else lr,
        "n_steps": run["rows"],
        "gamma": run["gamma"],
        "gae_lambda": run["lam"],
        "seed": run["seed"],
        "device": "cpu",
        "policy_kwargs": network | {"optimizer_kwargs": {"eps": 1e-5}},
    }
    batch = {"batch_size": run["envs"] * run["rows"] // run["minibatches"]}
    if run["method"] == "trpo":
        # Its KL of Gaussians is a mean over the action's numbers, where the bound is on their sum.
        target = run["kl"] / int(np.prod(envs.action_space.shape))
        own = {"n_critic_updates": run["epochs"], "target_kl": target, "cg_max_steps": 10}
        return TRPO(policy, envs, **shared, **batch, **own)
    if run["method"] == "a2c":
        own = {"use_rms_prop": False, "normalize_advantage": True, "ent_coef": run["entropy"]}
        return A2C(policy, envs, **shared, **own)
    own = {"n_epochs": run["epochs"], "clip_range": run["clip"], "ent_coef": run["entropy"]}
    if run["method"] == "ppo-kl":  # it has no penalty: the clip, and no further minibatches beyond 1.5 times this KL
        own["target_kl"] = run["kl"]
    return (RecurrentPPO if run["network"] == "memory" else PPO)(policy, envs, **shared, **batch, **own)


def main() -> None:
    """Train and evaluate as the JSON argument says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=json.loads, help="the run, as JSON")
    run = parser.parse_args().run
    torch.set_num_threads(1)
    envs = vectorised(run, training=True)
    learner, last = algorithm(run, envs), LastTenth(run["steps"])
    learner.learn(total_timesteps=run["steps"], callback=last)
    wall, cpu = time.time(), time.process_time()
    tests = vectorised(run, training=False)
    if run["normalise"]:
        tests.obs_rms = envs.obs_rms
    returns, _ = evaluate_policy(
        learner, tests, run["episodes"], deterministic=not run["sampled"], return_episode_rewards=True
    )
    result = {
        "env_steps": learner.num_timesteps,
        "evaluation": float(np.mean(returns)),
        "training": float(np.mean(last.returns)) if last.returns else None,
        "evaluation_wall": time.time() - wall,
        "evaluation_cpu": time.process_time() - cpu,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the environments of benchmarks/
    main()
