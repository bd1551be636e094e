"""The random policy: its log-probabilities against definitions, its actions against the space."""

import numpy as np
import pytest
from gymnasium import spaces

from actors.policy import RandomPolicy
from actors.spaces import columns_of


@pytest.mark.parametrize(
    ("space", "log_prob"),
    [
        (spaces.Discrete(4, start=3), -np.log(4)),
        (spaces.MultiDiscrete([2, 5]), -np.log(10)),
        (spaces.MultiBinary(3), -np.log(8)),
        (spaces.Box(np.float32([-1, 0]), np.float32([1, 4])), -np.log(8)),
    ],
)
def test_actions_are_in_the_space_and_uniform(space, log_prob):
    columns, _ = RandomPolicy(space).act({}, None, np.zeros(50, np.bool_), np.random.default_rng(0))
    (column,) = columns_of(space, "action").values()
    assert (str(columns["action"].dtype), columns["action"].shape) == (column.dtype, (50, *column.shape))
    assert all(space.contains(action.astype(space.dtype)) for action in columns["action"])
    assert columns["log_prob"].dtype == np.float32
    np.testing.assert_allclose(columns["log_prob"], np.full(50, log_prob), rtol=1e-6)


def test_an_unbounded_box_is_sampled_from_a_normal():
    columns, _ = RandomPolicy(spaces.Box(-np.inf, np.inf, (2,))).act(
        {}, None, np.zeros(7, np.bool_), np.random.default_rng(0)
    )
    density = np.exp(-0.5 * columns["action"].astype(float) ** 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(columns["log_prob"], np.log(density).sum(axis=1), rtol=1e-5)


def test_the_generator_is_the_only_source_of_randomness():
    def draw(seed: int) -> list[int]:
        policy = RandomPolicy(spaces.Discrete(100))
        return policy.act({}, None, np.zeros(8, np.bool_), np.random.default_rng(seed))[0]["action"].tolist()

    assert draw(1) == draw(1) != draw(2)
