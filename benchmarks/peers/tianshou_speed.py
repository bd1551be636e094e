"""Tianshou's PPO on a task of `benchmarks.settings`: agent steps a second. Imports none of ours."""

import sys
from collections import deque
from pathlib import Path

import gymnasium
import numpy as np
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy, ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import BaseVectorEnv, DummyVectorEnv, VectorEnvNormObs
from tianshou.utils.net.common import ActorCritic, Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from torch.distributions import Independent, Normal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the environments of benchmarks/

from benchmarks.peers.clock import EPISODES, asked


def environments(run: dict) -> BaseVectorEnv:
    """All of the run in this process, with observations normalised where it wants them."""
    make = [lambda: gymnasium.make(run["environment"], **run["kwargs"])] * run["envs"]
    found = DummyVectorEnv(make)
    found.seed(run["seed"])
    return VectorEnvNormObs(found) if run["normalise"] else found


def networks(space: gymnasium.Space, actions: gymnasium.Space) -> tuple[ProbabilisticActorPolicy, torch.nn.Module]:
    """Policy and critic, started as the library's examples of PPO have them."""
    bodies = [Net(state_shape=space.shape, hidden_sizes=[64, 64], activation=torch.nn.Tanh) for _ in range(2)]
    if isinstance(actions, gymnasium.spaces.Discrete):
        actor = DiscreteActor(preprocess_net=bodies[0], action_shape=actions.n, softmax_output=False)
        critic, last = DiscreteCritic(preprocess_net=bodies[1]), actor.last
        policy = DiscreteActorPolicy(actor=actor, action_space=actions)
    else:
        actor = ContinuousActorProbabilistic(preprocess_net=bodies[0], action_shape=actions.shape, unbounded=True)
        critic, last = ContinuousCritic(preprocess_net=bodies[1]), actor.mu
        torch.nn.init.constant_(actor.sigma_param, -0.5)
        policy = ProbabilisticActorPolicy(
            actor=actor, dist_fn=lambda given: Independent(Normal(*given), 1), action_space=actions
        )
    for layer in ActorCritic(actor, critic).modules():
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.orthogonal_(layer.weight, gain=np.sqrt(2))
            torch.nn.init.zeros_(layer.bias)
    for layer in last.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.mul_(0.01)
    return policy, critic


def algorithm(run: dict, steps: int) -> PPO:
    """With the run's settings."""
    single = gymnasium.make(run["environment"], **run["kwargs"])  # the vector knows the spaces below all wrappers
    policy, critic = networks(single.observation_space, single.action_space)
    optimiser = AdamOptimizerFactory(lr=run["lr"], eps=1e-5)
    if run["anneal"]:
        optimiser.with_lr_scheduler_factory(LRSchedulerFactoryLinear(1, steps, run["envs"] * run["rows"]))
    return PPO(
        policy=policy,
        critic=critic,
        optim=optimiser,
        gamma=run["gamma"],
        gae_lambda=run["lam"],
        eps_clip=run["clip"],
        ent_coef=run["entropy"],
        vf_coef=0.5,
        max_grad_norm=0.5,
        return_scaling=run["normalise"],
        max_batchsize=run["envs"] * run["rows"],
    )


def main() -> None:
    """Train as the command line says."""
    run, clock = asked(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(run["seed"])
    envs, batch, returns = environments(run), run["envs"] * run["rows"], deque(maxlen=EPISODES)
    learner, steps = algorithm(run, clock.steps), 0
    collector = Collector(learner.policy, envs, VectorReplayBuffer(batch, run["envs"]))
    collector.reset()
    while not clock.done:
        with policy_within_training_step(learner.policy):
            collected = collector.collect(n_step=batch)
            learner.update(collector.buffer, batch_size=batch // run["minibatches"], repeat=run["epochs"])
        collector.reset_buffer(keep_statistics=True)
        returns.extend(collected.returns.tolist())
        steps += collected.n_collected_steps
        clock.iteration(steps, returns)
    print(clock.told())


if __name__ == "__main__":
    main()
