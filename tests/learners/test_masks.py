"""Forbidden actions have probability 0 in acting and in learning, and nothing becomes NaN of it."""

from dataclasses import dataclass, replace

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from learners.augment import GaussianNoise
from learners.behaviour import recorded
from learners.distributions import Categorical, MultiDiscrete
from learners.gradient import Gradient
from learners.group import Group
from learners.masks import ACTION_MASK, check_decisions, choices_of, masked
from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp
from learners.objective import MethodError
from learners.objectives.a2c import A2C
from learners.objectives.ppo import PPO
from learners.policy import ModelPolicy
from replay.schema import Column
from tests.learners.small import random_batch

SIZES = (2, 4)
SPACE = gym.spaces.MultiDiscrete(SIZES, start=[0, 3])
OBSERVATION = {"observation.place": Column("float32", (3,)), ACTION_MASK: Column("int8", (6,))}
MASKS = arrays.arrays(np.int8, (5, 6), elements=st.integers(0, 1))


def model_of(*objectives, space: gym.Space = SPACE, **options) -> Model:
    total = 6 if isinstance(space, gym.spaces.MultiDiscrete) else int(space.n)
    observation = OBSERVATION | {ACTION_MASK: Column("int8", (total,))}
    return ActorCritic(Mlp((8,)), **options).build(observation, space, objectives)


def allowed_of(mask: torch.Tensor) -> torch.Tensor:
    """Written out: an action is allowed where the mask says so, or where it says no for all of its choice."""
    allowed = mask != 0
    for row in allowed:
        for begin, end in ((0, 2), (2, 6)):
            if not row[begin:end].any():
                row[begin:end] = True
    return allowed


@given(mask=MASKS, seed=st.integers(0, 100))
def test_forbidden_actions_have_probability_zero_and_the_others_keep_their_ratios(mask: np.ndarray, seed: int) -> None:
    logits = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    allowed = allowed_of(torch.from_numpy(mask))
    dist = MultiDiscrete(masked(logits, torch.from_numpy(mask), SIZES), SIZES)
    for choice, raw, kept in zip(dist.choices, logits.split(SIZES, -1), allowed.split(SIZES, -1), strict=True):
        weights = raw.exp() * kept
        torch.testing.assert_close(choice.log_probs.exp(), weights / weights.sum(-1, keepdim=True))
    for seed_of_sample in range(5):
        action = dist.sample(np.random.default_rng(seed_of_sample))
        for number, kept in enumerate(allowed.split(SIZES, -1)):
            assert kept.gather(1, action[:, number, None]).all()
    assert allowed.split(SIZES, -1)[1].gather(1, dist.mode()[:, 1, None]).all()


@given(mask=MASKS)
def test_entropy_kl_and_their_gradients_are_those_of_the_allowed_actions(mask: np.ndarray) -> None:
    logits, other = torch.randn(5, 6, requires_grad=True), torch.randn(5, 6)
    allowed = allowed_of(torch.from_numpy(mask))
    dists = [MultiDiscrete(masked(each, torch.from_numpy(mask), SIZES), SIZES) for each in (logits, other)]
    entropy, kl = dists[0].entropy(), dists[0].kl(dists[1])
    for row in range(5):
        parts = list(zip(*(each[row].split(SIZES) for each in (logits, other, allowed)), strict=True))
        own = [Categorical(a[k]) for a, _, k in parts]
        torch.testing.assert_close(entropy[row], sum(part.entropy() for part in own))
        apart = sum(part.kl(Categorical(b[k])) for part, (_, b, k) in zip(own, parts, strict=True))
        torch.testing.assert_close(kl[row], apart)
    (entropy.sum() + kl.sum()).backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[~allowed] == 0).all()


@pytest.mark.parametrize("space", [gym.spaces.Discrete(6, start=2), SPACE])
def test_the_policy_acts_within_the_mask_and_the_learner_finds_the_same_probabilities(space: gym.Space) -> None:
    model, rng = model_of(space=space), np.random.default_rng(0)
    policy = ModelPolicy(model_of(space=space, record_distribution=True))
    policy.load(0, model.acting_weights())
    mask = (rng.random((200, 6)) < 0.4).astype(np.int8)
    mask[:, [1, 4]] |= mask.sum(1, keepdims=True) == 0
    rows = {"observation.place": rng.random((200, 3), np.float32), ACTION_MASK: mask}
    columns, _ = policy.act(rows, policy.initial_state(200), np.ones(200, np.bool_), rng)
    out = model({name: torch.from_numpy(value).unsqueeze(1) for name, value in rows.items()})
    action = torch.from_numpy(columns["action"]).unsqueeze(1)
    assert (torch.from_numpy(columns["log_prob"]) > -20).all(), "a forbidden action was chosen"
    torch.testing.assert_close(out.dist.log_prob(action)[:, 0], torch.from_numpy(columns["log_prob"]))
    acted = replace(out.dist, logits=torch.from_numpy(columns["policy_logits"]).unsqueeze(1))
    torch.testing.assert_close(acted.kl(out.dist), torch.zeros(200, 1), rtol=0, atol=1e-6)
    assert recorded(out.dist)["policy_logits"].isfinite().all()


def test_no_encoder_sees_the_mask() -> None:
    model = model_of(value_encoder=Mlp((4,)), normalise=True)
    assert model.encoder.names == model.value_encoder.names == ("observation.place",)
    assert set(model.moments_by_column) == {"observation.place", "discounted_return"}
    batch = {"observation.place": torch.rand(4, 3, 3)}
    outs = [model(batch | {ACTION_MASK: mask}) for mask in (torch.ones(4, 3, 6), torch.eye(6)[:3].expand(4, 3, 6))]
    assert torch.equal(outs[0].features, outs[1].features) and torch.equal(outs[0].value, outs[1].value)
    assert not torch.equal(outs[0].dist.logits, outs[1].dist.logits)


@pytest.mark.parametrize("objective", [A2C(), PPO(), PPO(kl_target=0.01)])
def test_a_learner_step_stays_finite_also_on_rows_that_forbid_what_was_never_chosen(objective) -> None:
    """Final observations hold action 0 and often forbid everything, or everything but one action."""
    model = model_of(objective, space=gym.spaces.Discrete(6), record_distribution=True)
    batch = random_batch(4, 9)
    batch["observation.place"] = batch.pop("observation")
    mask = torch.zeros(4, 9, 6, dtype=torch.int8)
    mask.scatter_(2, batch["action"].unsqueeze(2), 1)
    mask[..., 5] = 1
    mask[batch["mask"] == 0] = 0
    mask[0, batch["mask"][0] == 0, 3] = 1
    batch[ACTION_MASK] = mask
    with torch.no_grad():
        out = model(batch)
    batch |= {"log_prob": out.dist.log_prob(batch["action"]), **recorded(out.dist)}
    engine = Gradient({"fresh": objective}, epochs=2, minibatches=2).start(model, Group())
    metrics = engine.step({"fresh": batch}, progress=0.0)
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert metrics["train/first_ratio_error"] == pytest.approx(0.0, abs=1e-5)


def test_a_decision_without_an_allowed_action_is_named() -> None:
    batch = random_batch(2, 5)
    batch["mask"] = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    batch["episode"] += 7
    batch[ACTION_MASK] = torch.ones(2, 5, 6, dtype=torch.int8)
    batch[ACTION_MASK][0, 3] = 0
    check_decisions(batch, SIZES)
    batch[ACTION_MASK][1, 2, 2:] = 0
    with pytest.raises(MethodError, match="allows no action in step 2 of episode 7"):
        check_decisions(batch, SIZES)


@dataclass(frozen=True)
class Wrong:
    space: gym.Space
    shape: tuple[int, ...]
    sentence: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong(gym.spaces.Box(-1, 1, (2,)), (2,), "only Discrete and MultiDiscrete actions can be masked"),
        Wrong(gym.spaces.MultiBinary(3), (3,), "only Discrete and MultiDiscrete actions can be masked"),
        Wrong(gym.spaces.Discrete(4), (5,), r"has shape \(5,\), wanted \(4,\)"),
        Wrong(SPACE, (2, 4), r"has shape \(2, 4\), wanted \(6,\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(wrong: Wrong) -> None:
    with pytest.raises(MethodError, match=wrong.sentence):
        choices_of({ACTION_MASK: Column("int8", wrong.shape)}, wrong.space)


def test_without_a_mask_nothing_changes() -> None:
    assert choices_of({"observation": Column("float32", (3,))}, SPACE) == ()


def test_augmentation_leaves_a_mask_of_floats_as_it_is() -> None:
    observation = {"observation.place": Column("float32", (3,)), ACTION_MASK: Column("float32", (6,))}
    model = ActorCritic(Mlp((8,))).build(observation, SPACE, [PPO()])
    batch = random_batch(4, 9)
    batch["observation.place"] = batch.pop("observation")
    batch[ACTION_MASK] = torch.eye(6)[torch.randint(0, 6, (4, 9))]
    engine = Gradient({"fresh": PPO()}, augment=GaussianNoise(0.1)).start(model, Group())
    changed = engine._augmented(batch)
    assert torch.equal(changed[ACTION_MASK], batch[ACTION_MASK])
    assert not torch.equal(changed["observation.place"], batch["observation.place"])
