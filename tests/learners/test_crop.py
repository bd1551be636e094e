"""A model that sees a square of its frames: the middle when it acts, another one where an augmentation cut it out."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners.augment import RandomCrop, centre_crop
from learners.gradient import Gradient
from learners.group import Group
from learners.model import ActorCritic, Model
from learners.nets.encoders import SmallConv
from learners.objective import Batch
from learners.objectives.clone import Clone
from learners.objectives.curl import Curl
from learners.policy import ModelPolicy
from learners.update import Average
from replay.schema import Column

IMAGE = {"observation": Column("uint8", (36, 40))}


def model(*objectives: object, crop: int = 28) -> Model:
    torch.manual_seed(0)
    return ActorCritic(SmallConv(16), stack=2, crop=crop).build(IMAGE, gym.spaces.Discrete(3), objectives)


def batch(rows: int = 20) -> Batch:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (rows, 1, 2, 36, 40), generator=generator, dtype=torch.uint8)
    return {"observation": frames, "mask": torch.ones(rows, 1), "action": torch.zeros(rows, 1, dtype=torch.int64)}


def test_the_middle_is_all_that_it_sees() -> None:
    on, columns = model(), batch()
    other = columns["observation"].clone()
    other[..., :4, :] = other[..., -4:, :] = other[..., :6] = other[..., -6:] = 0
    assert torch.equal(on(columns).features, on(columns | {"observation": other}).features)
    cut = centre_crop(columns["observation"].flatten(0, 1), 28).unflatten(0, (20, 1))
    assert torch.equal(on(columns).features, on(columns | {"observation": cut}).features)


def test_a_policy_acts_on_the_middle() -> None:
    policy, rng = ModelPolicy(model()), np.random.default_rng(0)
    frames = rng.integers(0, 256, (5, 36, 40), dtype=np.uint8)
    edged = frames.copy()
    edged[:, :4] = 9
    first = np.ones(5, np.bool_)
    values = [
        policy.act({"observation": seen}, policy.initial_state(5), first, np.random.default_rng(0))[0]["value"]
        for seen in (frames, edged)
    ]
    np.testing.assert_array_equal(*values)


def test_it_learns_on_random_crops() -> None:
    """Crop-only and crop + CURL: what every objective sees is cut anew, and CURL's keys are cut from whole frames."""
    curl = Curl(features=8, augment=RandomCrop(28))
    on = model(Clone(), curl)
    then = tuple(Average(part) for part in curl.slow)
    update = Gradient({"fresh": Clone(), "past": curl}, epochs=1, minibatches=2, augment=RandomCrop(28), then=then)
    metrics = update.start(on, Group()).step({"fresh": batch(), "past": batch(30)}, progress=0.0)
    assert 0 < metrics["contrast/loss"] < 10


def test_a_crop_larger_than_the_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="crop is 37, and the images are 36x40"):
        model(crop=37)
