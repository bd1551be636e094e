"""What the acting policy records is the distribution that it drew from, whatever its kind."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners.behaviour import behaviour, kl_from_behaviour
from learners.model import ActorCritic
from learners.nets.encoders import Mlp, SmallConv
from learners.objective import MethodError
from learners.policy import ModelPolicy
from replay.schema import Column
from tests.learners.acting import SPACES, acted_batch, policy_of
from tests.learners.small import OBSERVATION, small_model

VECTOR = ActorCritic(Mlp((6,)), record_distribution=True)
ACTING = {
    **{kind: (VECTOR, space) for kind, space in SPACES.items()},
    "squashed": (ActorCritic(Mlp((6,)), squashed=True, record_distribution=True), gym.spaces.Box(-1, 2, (2,))),
    "bf16": (ActorCritic(SmallConv(16), precision="bf16", record_distribution=True), gym.spaces.Discrete(4)),
}


@pytest.mark.parametrize("kind", list(ACTING))
def test_the_recorded_parameters_are_those_of_the_policy_that_acted(kind: str, rng: np.random.Generator) -> None:
    spec, space = ACTING[kind]
    columns = {"observation": Column("uint8", (36, 36))} if kind == "bf16" else OBSERVATION
    observation = (
        rng.integers(0, 256, (7, 36, 36), dtype=np.uint8) if kind == "bf16" else rng.random((7, 3), np.float32)
    )
    model, policy = spec.build(columns, space), ModelPolicy(spec.build(columns, space))
    with torch.no_grad():
        model.policy.linear.weight.mul_(100)
    policy.load(1, model.acting_weights())
    rows, _ = policy.act({"observation": observation}, policy.initial_state(7), np.ones(7, np.bool_), rng)
    extras = {name: Column(str(value.dtype), value.shape[1:]) for name, value in rows.items()}
    del extras["action"], extras["log_prob"]
    assert extras == policy.extras, "what is recorded is not what was announced"
    batch = {name: torch.from_numpy(np.array(value)).unsqueeze(1) for name, value in rows.items()}
    batch |= {"mask": torch.ones(7, 1), "observation": torch.from_numpy(observation).unsqueeze(1)}
    if kind == "bf16":
        batch["observation"] = batch["observation"].unsqueeze(2)  # a stack of one
    dist = model(batch).dist
    acted = behaviour(dist, batch)
    assert type(acted) is type(dist)
    torch.testing.assert_close(acted.log_prob(batch["action"]), batch["log_prob"], rtol=0, atol=1e-5)
    assert kl_from_behaviour(dist, batch).abs().max() < 1e-6
    with torch.no_grad():
        model.policy.linear.weight.mul_(2)
    moved = model(batch).dist
    torch.testing.assert_close(kl_from_behaviour(moved, batch), dist.kl(moved), rtol=1e-3, atol=1e-5)
    assert kl_from_behaviour(moved, batch).mean() > 1e-3


def test_nothing_more_is_recorded_where_nobody_asked() -> None:
    assert set(ModelPolicy(small_model()).extras) == {"value"}


def test_rows_without_a_decision_are_at_distance_0_whatever_they_hold() -> None:
    model = policy_of()
    batch = acted_batch(model)
    batch["policy_logits"] = torch.where(batch["mask"].unsqueeze(-1) > 0, batch["policy_logits"] + 1, torch.nan)
    batch["policy_logits"][..., 0] += 1
    kl = kl_from_behaviour(model(batch).dist, batch)
    assert torch.equal(kl > 1e-4, batch["mask"] > 0)
    kl.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.policy.parameters())


def test_a_missing_column_says_what_to_do() -> None:
    model = policy_of("gaussian")
    batch = acted_batch(model)
    del batch["policy_log_std"]
    with pytest.raises(MethodError, match=r'"policy_log_std".*record_distribution=True'):
        kl_from_behaviour(model(batch).dist, batch)
