"""RLlib's PPO on a task of `benchmarks.settings`: agent steps a second, all its processes. Imports none of ours."""

import sys
from collections import deque
from pathlib import Path

import gymnasium
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.tune.registry import register_env

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the environments of benchmarks/

from benchmarks.peers.clock import EPISODES, asked


def environment(run: dict) -> gymnasium.Env:
    """One, with rewards divided where the run wants it: RLlib has a filter of observations only."""
    # RLlib cuts an episode at the end of a batch, and knows the return of the last piece only.
    single = gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(run["environment"], **run["kwargs"]))
    return gymnasium.wrappers.NormalizeReward(single, gamma=run["gamma"]) if run["normalise"] else single


def algorithm(run: dict, steps: int, returns: deque[float]) -> Algorithm:
    """Acts and learns in this process, with the run's settings; leaves the returns of episodes."""
    register_env("task", lambda _: environment(run))
    batch, space = run["envs"] * run["rows"], gymnasium.make(run["environment"]).action_space
    config = (
        PPOConfig()
        .environment("task")
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=run["envs"],
            rollout_fragment_length=run["rows"],
            env_to_module_connector=(lambda *_, **__: MeanStdFilter()) if run["normalise"] else None,
        )
        .learners(num_learners=0)
        .training(
            lr=[[0, run["lr"]], [steps, 0.0]] if run["anneal"] else run["lr"],
            gamma=run["gamma"],
            lambda_=run["lam"],
            train_batch_size_per_learner=batch,
            # It adds a masked row to each piece of an episode: a number would make one minibatch more than one.
            minibatch_size=batch // run["minibatches"] if run["minibatches"] > 1 else None,
            num_epochs=run["epochs"],
            clip_param=run["clip"],
            entropy_coeff=run["entropy"],
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[64, 64],
                fcnet_activation="tanh",
                vf_share_layers=False,
                free_log_std=isinstance(space, gymnasium.spaces.Box),
            )
        )
        .callbacks(on_episode_end=lambda episode, **_: returns.append(episode.get_infos(-1)["episode"]["r"]))
        .debugging(seed=run["seed"])
    )
    return config.build_algo()


def main() -> None:
    """Train as the command line says."""
    run, clock = asked(__doc__)
    torch.set_num_threads(1)
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    returns: deque[float] = deque(maxlen=EPISODES)
    learner = algorithm(run, clock.steps, returns)
    while not clock.done:
        found = learner.train()["env_runners"]
        clock.iteration(int(found["num_env_steps_sampled_lifetime"]), returns)
    print(clock.told())


if __name__ == "__main__":
    main()
