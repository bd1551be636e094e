import gymnasium as gym
import numpy as np
import pytest
import torch

from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import Nature, SmallConv
from learners.policy import ModelPolicy
from replay.schema import Column

FRAMES = {"observation": Column("uint8", (36, 36))}
ACTIONS = gym.spaces.Discrete(4)


@pytest.mark.parametrize("encoder", [Nature(64), SmallConv(64)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_policy_gives_the_learners_probabilities(encoder, precision: str, rng: np.random.Generator) -> None:
    spec = ActorCritic(encoder=encoder, stack=3, precision=precision)
    model = spec.build(FRAMES, ACTIONS)
    policy = ModelPolicy(spec.build(FRAMES, ACTIONS))
    policy.load(3, model.acting_weights())
    frames = rng.integers(0, 256, (5, 36, 36), dtype=np.uint8)
    columns, _ = policy.act({"observation": frames}, policy.initial_state(5), np.ones(5, np.bool_), rng)
    stacked = torch.from_numpy(np.repeat(frames[:, None], 3, 1)).unsqueeze(1)
    out = model({"observation": stacked})
    log_prob = out.dist.log_prob(torch.from_numpy(columns["action"]).unsqueeze(1))[:, 0].detach()
    torch.testing.assert_close(torch.from_numpy(columns["log_prob"]), log_prob, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.from_numpy(columns["value"]), out.value[:, 0].detach(), rtol=0, atol=1e-6)
    assert policy.version == 3


def test_a_core_records_the_state_before_the_row_and_forgets_it_at_an_episodes_start(rng: np.random.Generator) -> None:
    policy = ModelPolicy(ActorCritic(encoder=SmallConv(16), core=Gru(8)).build(FRAMES, ACTIONS))
    frames = rng.integers(0, 256, (2, 36, 36), dtype=np.uint8)
    state = policy.initial_state(2)
    first = np.ones(2, np.bool_)
    columns, after = policy.act({"observation": frames}, state, first, rng)
    assert not columns["core_state"].any() and after.core.any()
    again, _ = policy.act({"observation": frames}, after, np.array([True, False]), rng)
    assert np.array_equal(again["core_state"], after.core)
    assert again["value"][0] == pytest.approx(columns["value"][0], abs=1e-6)
    assert again["value"][1] != pytest.approx(columns["value"][1], abs=1e-6)


def test_greedy_takes_the_likeliest_action_and_samples_differ(rng: np.random.Generator) -> None:
    policy = ModelPolicy(ActorCritic(encoder=SmallConv(16)).build(FRAMES, ACTIONS))
    frames = np.repeat(rng.integers(0, 256, (1, 36, 36), dtype=np.uint8), 64, 0)
    first = np.ones(64, np.bool_)
    greedy, _ = policy.act({"observation": frames}, policy.initial_state(64), first, rng, greedy=True)
    sampled, _ = policy.act({"observation": frames}, policy.initial_state(64), first, rng)
    assert len(set(greedy["action"])) == 1 and len(set(sampled["action"])) > 1
    assert greedy["log_prob"][0] >= sampled["log_prob"].max() - 1e-6
