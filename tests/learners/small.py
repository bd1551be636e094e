"""A model and batches small enough to reason about."""

import gymnasium as gym
import torch

from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp
from learners.objective import Batch
from replay.schema import Column

OBSERVATION = {"observation": Column("float32", (3,))}
ACTIONS = gym.spaces.Discrete(2)


def small_model(*objectives, seed: int = 0, **options) -> Model:
    torch.manual_seed(seed)
    spec = ActorCritic(encoder=Mlp((8,)), **options)
    return spec.build(OBSERVATION, ACTIONS, objectives)


def random_batch(windows: int, rows: int, *, seed: int = 0) -> Batch:
    """Windows with random ends, final rows and the last row masked out."""
    generator = torch.Generator().manual_seed(seed)
    shape = (windows, rows)

    def uniform(*more: int) -> torch.Tensor:
        return torch.rand(*shape, *more, generator=generator)

    mask = (uniform() > 0.3).float()
    mask[:, -1] = 0
    return {
        "observation": uniform(3),
        "action": torch.randint(0, 2, shape, generator=generator),
        "log_prob": -uniform(),
        "value": uniform(),
        "reward": uniform(),
        "discounted_return": uniform(),
        "terminated": (uniform() > 0.9).float(),
        "truncated": (uniform() > 0.9).float(),
        "mask": mask,
        "episode": torch.zeros(shape, dtype=torch.int64),
        "step": torch.arange(rows, dtype=torch.int32).expand(shape).clone(),
        "policy_version": torch.zeros(shape, dtype=torch.int64),
    }
