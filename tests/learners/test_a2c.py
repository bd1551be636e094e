"""A2C's loss by hand, and against PPO without clip."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from learners.gradient import Gradient
from learners.group import Group
from learners.objective import reduce, tagged_terms
from learners.objectives.a2c import A2C
from learners.objectives.ppo import PPO
from tests.learners.small import random_batch, small_model


def of_the_present_policy(model, batch):
    """The batch as if this very model had acted."""
    with torch.no_grad():
        out = model(batch)
    return batch | {"log_prob": out.dist.log_prob(batch["action"]), "value": out.value}


def prepared(objective, model, batch):
    return batch | objective.prepare(model, batch, Group())


def gradient(objective, model, columns) -> Tensor:
    loss, _ = reduce(tagged_terms(objective, model, model(columns), columns), Group())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def test_terms_equal_a_loop_over_rows() -> None:
    objective, model = A2C(replace(A2C().advantages, gamma=0.9)), small_model()
    columns = prepared(objective, model, random_batch(3, 7))
    out = model(columns)
    _, means = reduce(tagged_terms(objective, model, out, columns), Group())
    policy, value, entropy, rows = 0.0, 0.0, 0.0, columns["mask"].nonzero().tolist()
    for stream, row in rows:
        log_probs = out.dist.logits[stream, row].detach().log_softmax(0)
        policy -= float(log_probs[columns["action"][stream, row]] * columns["advantage"][stream, row])
        value += float((out.value[stream, row].detach() - columns["return"][stream, row]) ** 2) / 2
        entropy += float((log_probs.exp() * log_probs).sum())
    for name, total in {"policy_gradient_loss": policy, "value_loss": value, "entropy_loss": entropy}.items():
        assert float(means[f"train/{name}"]) == pytest.approx(total / len(rows), abs=1e-6), name


def test_returns_are_of_all_rewards_to_the_windows_end() -> None:
    model, batch = small_model(), random_batch(1, 4)
    batch |= {name: torch.zeros(1, 4) for name in ("terminated", "truncated")}
    batch["mask"] = torch.tensor([[1.0, 1, 1, 0]])
    columns = prepared(A2C(replace(A2C().advantages, gamma=0.5)), model, batch)
    with torch.no_grad():
        last = model(batch).value[0, 3]
    reward = batch["reward"][0]
    expected = reward[0] + 0.5 * reward[1] + 0.25 * reward[2] + 0.125 * last
    torch.testing.assert_close(columns["return"][0, 0], expected)
    torch.testing.assert_close(columns["advantage"][0, 0], expected - batch["value"][0, 0])


def test_the_first_gradient_is_that_of_ppo_without_clip() -> None:
    model = small_model()
    batch = of_the_present_policy(model, random_batch(4, 9))
    a2c = A2C(PPO().advantages, value=0.5)
    for clip in (math.inf, 0.2):
        same = [gradient(objective, model, prepared(objective, model, batch)) for objective in (a2c, PPO(clip=clip))]
        torch.testing.assert_close(*same, rtol=0, atol=1e-6)


def test_advantages_are_not_normalised_unless_asked() -> None:
    model, batch = small_model(), random_batch(4, 9)
    plain, asked = (prepared(A2C(replace(A2C().advantages, normalise=flag)), model, batch) for flag in (False, True))
    counted = plain["counted"] > 0
    torch.testing.assert_close((plain["return"] - batch["value"])[counted], plain["advantage"][counted])
    assert asked["advantage"][counted].mean() == pytest.approx(0.0, abs=1e-6)
    assert plain["advantage"][counted].mean() != pytest.approx(0.0, abs=1e-3)


def test_rows_without_a_decision_do_not_matter() -> None:
    model = small_model()
    columns = prepared(A2C(), model, random_batch(4, 9))
    counted = columns["counted"] > 0
    spoilt = columns | {name: torch.where(counted, columns[name], 1e6) for name in ("advantage", "return")}
    torch.testing.assert_close(gradient(A2C(), model, columns), gradient(A2C(), model, spoilt))


def test_the_first_ratio_tells_whether_rows_are_the_policys_own() -> None:
    model = small_model()
    engine = Gradient({"fresh": A2C()}, epochs=1, minibatches=1).start(model, Group())
    batch = of_the_present_policy(model, random_batch(4, 9))
    assert engine.step({"fresh": batch}, progress=0.0)["train/first_ratio_error"] == pytest.approx(0.0, abs=1e-6)
    assert engine.step({"fresh": batch}, progress=0.0)["train/first_ratio_error"] > 1e-6
