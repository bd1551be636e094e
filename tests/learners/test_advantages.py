"""Advantages and returns as columns: whose values they take, which rows count, and what is done to rewards."""

import pytest
import torch

from learners.advantages import Advantages, successor_values
from learners.group import Group
from learners.nets.cores import Gru
from tests.learners.small import random_batch, small_model


@pytest.mark.parametrize("recurrent", [False, True])
def test_values_are_recorded_ones_except_where_nobody_acted(recurrent: bool) -> None:
    model = small_model(core=Gru(8) if recurrent else None)
    batch = random_batch(3, 7) | {"core_state": torch.zeros(3, 7, 8)}
    acted = batch["mask"] == 1
    with torch.no_grad():
        value, own = successor_values(model, batch), model(batch).value
    assert torch.equal(value[acted], batch["value"][acted])
    torch.testing.assert_close(value[~acted], own[~acted])
    assert not torch.isclose(own, batch["value"]).any(), "the case must tell them apart"
    assert torch.equal(batch["value"], random_batch(3, 7)["value"]), "a recorded column was rewritten"


def test_values_where_everybody_acted() -> None:
    batch = random_batch(3, 7)
    batch["mask"] = torch.ones_like(batch["mask"])
    assert torch.equal(successor_values(small_model(), batch), batch["value"])


def test_truncated_rows_bootstrap_from_the_model() -> None:
    model, batch = small_model(), random_batch(3, 7)
    for name, last, final in (("mask", 1, 0), ("truncated", 1, 0), ("terminated", 0, 0)):
        batch[name][1, 2:4] = torch.tensor([last, final])
    columns = Advantages(0.9, normalise=False).columns(model, batch, Group())
    with torch.no_grad():
        final = model(batch).value[1, 3]
    expected = batch["reward"][1, 2] + 0.9 * final - batch["value"][1, 2]
    torch.testing.assert_close(columns["advantage"][1, 2], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(columns["return"], columns["advantage"] + successor_values(model, batch).detach())


def test_they_are_normalised_over_the_decided_rows() -> None:
    model, batch = small_model(), random_batch(3, 7)
    normal, raw = (Advantages(normalise=flag).columns(model, batch, Group()) for flag in (True, False))
    kept = normal["advantage"][batch["mask"] > 0]
    assert kept.mean() == pytest.approx(0, abs=1e-6)
    assert kept.std(correction=0) == pytest.approx(1, abs=1e-6)
    assert raw["advantage"][batch["mask"] > 0].std(correction=0) != pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(raw["return"], normal["return"])


def test_reward_clip_and_scale() -> None:
    model, batch = small_model(normalise=True), random_batch(3, 7)
    batch["reward"] = 5 * (batch["reward"] - 0.5)
    torch.testing.assert_close(Advantages(reward_clip=1.0).rewards(model, batch), batch["reward"].clamp(-1, 1))
    model.moments_by_column["discounted_return"].var.fill_(4.0)
    scaled = Advantages(scale_reward=True).rewards(model, batch)
    torch.testing.assert_close(scaled, batch["reward"] / 2, rtol=1e-6, atol=0)
    batch["reward"][0, 0] = 1e9
    assert Advantages(scale_reward=True).rewards(model, batch)[0, 0] == 10
    with pytest.raises(ValueError, match="normalise=True"):
        Advantages(scale_reward=True).rewards(small_model(), batch)
