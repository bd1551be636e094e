"""Batches whose actions a model chose itself, for every kind of action space."""

import gymnasium as gym
import numpy as np
import torch

from learners.behaviour import recorded
from learners.model import ActorCritic, Model
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp
from learners.objective import Batch
from tests.learners.small import OBSERVATION, random_batch

SPACES = {
    "categorical": gym.spaces.Discrete(3),
    "multi-discrete": gym.spaces.MultiDiscrete([2, 3]),
    "bernoulli": gym.spaces.MultiBinary(2),
    "gaussian": gym.spaces.Box(-1, 1, (2,)),
}


def policy_of(kind: str = "categorical", *objectives, seed: int = 0, recurrent: bool = False, **options) -> Model:
    """A model whose policy is far enough from uniform for rows to differ."""
    torch.manual_seed(seed)
    core = Gru(4) if recurrent else None
    spec = ActorCritic(Mlp((6,)), core=core, record_distribution=True, **options)
    model = spec.build(OBSERVATION, SPACES[kind], objectives)
    with torch.no_grad():
        model.policy.linear.weight.mul_(100)
    return model


@torch.no_grad()
def acted_batch(model: Model, windows: int = 6, rows: int = 9, *, seed: int = 0) -> Batch:
    """A random batch with the actions of the model's policy, as `ModelPolicy` would record them."""
    batch = random_batch(windows, rows, seed=seed)
    batch["core_state"] = torch.zeros(windows, rows, model.context)
    out = model(batch)
    batch["action"] = out.dist.sample(np.random.default_rng(seed))
    batch["log_prob"] = out.dist.log_prob(batch["action"])
    return batch | {name: value.clone() for name, value in recorded(out.dist).items()}


def policy_parameters(model: Model) -> dict[str, torch.Tensor]:
    parts = ("encoder", "core", "policy")
    return {name: p for name, p in model.named_parameters() if name.split(".")[0] in parts}


def gradient(loss: torch.Tensor, model: Model) -> torch.Tensor:
    """Of a loss, in the policy's parameters."""
    gradients = torch.autograd.grad(loss, list(policy_parameters(model).values()), retain_graph=True)
    return torch.cat([each.flatten() for each in gradients])


def copies(model: Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model: Model, before: dict[str, torch.Tensor]) -> set[str]:
    """Parts of the model that are not what they were, bit for bit."""
    return {name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
