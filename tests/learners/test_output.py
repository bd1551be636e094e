"""What a forward pass gives: only what is asked for is computed, as if all had been at once."""

import numpy as np
import pytest
import torch

from actors.environments import Environment
from cluster.experiment import Spaces
from learners.handful import Handful
from learners.model import ActorCritic
from learners.nets.encoders import Mlp
from learners.policy import ModelPolicy
from tests.learners.small import random_batch, small_model

SPECS = [
    ActorCritic(Mlp((8, 8)), value_encoder=Mlp((8,), "relu")),
    ActorCritic(Mlp((8,), "relu")),
    ActorCritic(Mlp(()), value_encoder=Mlp((8,)), normalise=True, record_distribution=True),
]


@pytest.mark.parametrize("asked", ["value", "dist"])
def test_a_part_makes_no_pass_through_the_others_encoder(asked: str) -> None:
    model = ActorCritic(Mlp((8,)), value_encoder=Mlp((8,))).build(*_spaces("CartPole-v1"))
    passed: list[str] = []
    for name in ("encoder", "value_encoder"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: passed.append(name))
    getattr(model({"observation": torch.zeros(2, 3, 4)}), asked)
    assert passed == [{"value": "value_encoder", "dist": "encoder"}[asked]]


def test_the_pass_decides_whether_there_are_gradients() -> None:
    model, batch = small_model(), random_batch(2, 3)
    with torch.no_grad():
        free = model(batch)
    bound = model(batch)
    with torch.no_grad():
        assert bound.value.requires_grad
    assert not free.value.requires_grad and not free.features.requires_grad


def _spaces(name: str):
    spaces = Spaces.of(Environment(name))
    return spaces.observation, spaces.action


@pytest.mark.parametrize("spec", SPECS, ids=["apart", "shared", "normalised"])
@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_policy_computes_by_numpy_what_the_model_computes(spec: ActorCritic, name: str) -> None:
    columns, actions = _spaces(name)
    model, policy = spec.build(columns, actions), ModelPolicy(spec.build(columns, actions))
    for moments in model.moments_by_column.values():
        moments.update(torch.randn(50, *moments.mean.shape) * 3 + 1, torch.ones(50))
    with torch.no_grad():
        model.policy.linear.weight.mul_(100)  # far from uniform
    policy.load(1, model.acting_weights())
    assert policy._handful is not None
    seen = np.random.default_rng(1).normal(size=(5, *columns["observation"].shape)).astype(np.float32) * 4
    rows, _ = policy.act({"observation": seen}, policy.initial_state(5), np.ones(5, np.bool_), np.random.default_rng(2))
    out = model({"observation": torch.from_numpy(seen)[:, None]})
    log_prob = out.dist.log_prob(torch.from_numpy(rows["action"])[:, None])[:, 0]
    np.testing.assert_allclose(rows["value"], out.value[:, 0].detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rows["log_prob"], log_prob.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_images_cores_and_bf16_are_left_to_the_model() -> None:
    columns, actions = _spaces("CartPole-v1")
    assert ModelPolicy(ActorCritic(Mlp((8,)), precision="bf16").build(columns, actions))._handful is None


def test_an_encoder_of_another_kind_is_left_to_the_model() -> None:
    model = ActorCritic(Mlp((8,)), value_encoder=Mlp((8,))).build(*_spaces("CartPole-v1"))
    assert Handful.of(model) is not None
    model.encoder.layers.append(torch.nn.LayerNorm(8))
    assert Handful.of(model) is None, "it has more than linear layers and activations"
    del model.encoder.layers[-1]
    model.value_encoder.names = ("another", "observation")
    assert Handful.of(model) is None, "the critic sees other columns"
