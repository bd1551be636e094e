"""V-trace against its definition written out, its limits, and the objective that uses it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.group import Group
from learners.objective import MethodError, reduce, tagged_terms
from learners.objectives.a2c import A2C
from learners.objectives.vtrace import VTrace
from learners.targets import gae, has_successor, vtrace
from tests.learners.small import random_batch, small_model


def windows(batch: int, rows: int, seed: int) -> dict[str, Tensor]:
    """Random rows of the row layout: a final observation (mask 0) follows every end; ratios around 1."""
    generator = torch.Generator().manual_seed(seed)
    columns = {name: torch.randn(batch, rows, generator=generator, dtype=torch.float64) for name in ("reward", "value")}
    columns["ratio"] = torch.randn(batch, rows, generator=generator, dtype=torch.float64).exp()
    terminated, truncated, mask = (torch.zeros(batch, rows, dtype=torch.float64) for _ in range(3))
    mask += 1
    for stream in range(batch):
        for row in range(rows - 1):
            draw = torch.rand((), generator=generator)
            if mask[stream, row] and draw < 0.3:
                (terminated if draw < 0.15 else truncated)[stream, row] = 1
                mask[stream, row + 1] = 0
    return columns | {"terminated": terminated, "truncated": truncated, "mask": mask}


def literal_vtrace(
    columns: dict[str, Tensor], gamma: float, lam: float, rho_clip: float, c_clip: float
) -> tuple[Tensor, Tensor]:
    """Equation 1 of the paper, a sum of products for every row; then the advantages of these targets."""
    ratio, reward, value = columns["ratio"].tolist(), columns["reward"].tolist(), columns["value"].tolist()
    ends = {name: columns[name].tolist() for name in ("terminated", "truncated", "mask")}
    batch, rows = columns["value"].shape
    target, advantage = columns["value"].clone(), torch.zeros_like(columns["value"])

    def error(b: int, t: int) -> float:
        after = 0.0 if ends["terminated"][b][t] else value[b][t + 1]
        return min(rho_clip, ratio[b][t]) * (reward[b][t] + gamma * after - value[b][t])

    for b in range(batch):
        for s in range(rows):
            weight = 1.0
            for t in range(s, rows - 1):
                if not ends["mask"][b][t]:
                    break
                target[b, s] += weight * error(b, t)
                if ends["terminated"][b][t] or ends["truncated"][b][t]:
                    break
                weight *= gamma * lam * min(c_clip, ratio[b][t])
        for s in range(rows - 1):
            if ends["mask"][b][s]:
                mixed = lam * target[b, s + 1] + (1 - lam) * value[b][s + 1]
                after = value[b][s + 1] if ends["truncated"][b][s] else mixed
                advantage[b, s] = reward[b][s] + gamma * (1 - ends["terminated"][b][s]) * after - value[b][s]
    return target, advantage


@given(
    rows=st.integers(2, 12),
    seed=st.integers(0, 1000),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    clips=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
)
def test_equals_the_paper_written_out(rows: int, seed: int, gamma: float, lam: float, clips: tuple) -> None:
    columns = windows(3, rows, seed)
    ours = vtrace(**columns, gamma=gamma, lam=lam, rho_clip=max(clips), c_clip=min(clips))
    for mine, written_out in zip(ours, literal_vtrace(columns, gamma, lam, max(clips), min(clips)), strict=True):
        torch.testing.assert_close(mine, written_out, rtol=0, atol=1e-10)


@pytest.mark.parametrize("lam", [0.0, 0.8, 1.0])
def test_without_lag_it_is_gae(lam: float) -> None:
    columns = windows(4, 20, 1)
    columns["ratio"] = torch.ones_like(columns["ratio"])
    target, advantage = vtrace(**columns, gamma=0.9, lam=lam)
    del columns["ratio"]
    expected = gae(**columns, gamma=0.9, lam=lam)
    torch.testing.assert_close(advantage, expected)
    torch.testing.assert_close(target, expected + columns["value"])


def test_without_lag_targets_are_n_step_returns() -> None:
    columns = windows(1, 7, 0) | {name: torch.zeros(1, 7, dtype=torch.float64) for name in ("terminated", "truncated")}
    columns |= {name: torch.ones(1, 7, dtype=torch.float64) for name in ("ratio", "mask")}
    returns, expected = columns["value"][0, -1], [columns["value"][0, -1]]
    for reward in reversed(columns["reward"][0, :-1]):
        returns = reward + 0.9 * returns
        expected.append(returns)
    torch.testing.assert_close(vtrace(**columns, gamma=0.9)[0][0], torch.stack(expected[::-1]))


def test_hand_computed() -> None:
    row = lambda *values: torch.tensor([values])  # noqa: E731
    zero = row(0.0, 0.0, 0.0)
    target, advantage = vtrace(
        row(2.0, 0.5, 1.0), row(1.0, 2.0, 9.0), row(0.0, 1.0, 4.0), zero, zero, row(1.0, 1.0, 0.0), gamma=0.5
    )
    # errors: min(1, 2) (1 + .5 - 0) = 1.5; .5 (2 + 2 - 1) = 1.5; the first is carried on by min(1, 2) * .5.
    torch.testing.assert_close(target, row(0 + 1.5 + 0.5 * 1.5, 1 + 1.5, 4.0))
    torch.testing.assert_close(advantage, row(1 + 0.5 * 2.5 - 0, 2 + 0.5 * 4 - 1, 0.0))


def test_ratios_count_no_more_than_the_clips() -> None:
    columns = windows(4, 20, 2)
    doubled = columns | {"ratio": torch.where(columns["ratio"] > 1.0, 2 * columns["ratio"], columns["ratio"])}
    once, more = (vtrace(**each, gamma=0.9) for each in (columns, doubled))
    torch.testing.assert_close(once, more)
    free = vtrace(**doubled, gamma=0.9, rho_clip=math.inf, c_clip=math.inf)[0]
    assert not torch.allclose(free, more[0])


def test_targets_stay_within_what_the_clips_allow() -> None:
    """|v - V| is at most rho_clip times the largest error times the sum of (gamma c_clip)^k."""
    columns = windows(8, 30, 3)
    columns["ratio"] = 1e6 * columns["ratio"]
    target, _ = vtrace(**columns, gamma=0.9, rho_clip=0.7, c_clip=0.5)
    largest = columns["reward"].abs().max() + 1.9 * columns["value"].abs().max()
    assert (target - columns["value"]).abs().max() <= 0.7 * largest / (1 - 0.45)


def test_rows_without_a_decision_neither_count_nor_spoil() -> None:
    columns = windows(4, 20, 4)
    spoilt = columns | {"ratio": torch.where(columns["mask"] > 0, columns["ratio"], math.inf)}
    for one, other in zip(vtrace(**columns, gamma=0.9), vtrace(**spoilt, gamma=0.9), strict=True):
        torch.testing.assert_close(one, other)
    target, advantage = vtrace(**columns, gamma=0.9)
    without = has_successor(columns["mask"]) == 0
    assert (advantage[without] == 0).all() and torch.equal(target[without], columns["value"][without])


def of_the_present_policy(model, batch):
    """The batch as if this very model had acted."""
    with torch.no_grad():
        out = model(batch)
    return batch | {"log_prob": out.dist.log_prob(batch["action"]), "value": out.value}


def gradients(objective, model, batch) -> Tensor:
    columns = batch | objective.prepare(model, batch, Group())
    loss, _ = reduce(tagged_terms(objective, model, model(columns), columns), Group())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize("lam", [0.9, 1.0])
def test_without_lag_the_gradient_is_that_of_a2c(lam: float) -> None:
    model = small_model(VTrace())
    batch = of_the_present_policy(model, random_batch(4, 9))
    advantages = Advantages(lam=lam, normalise=False)
    same = gradients(VTrace(advantages), model, batch), gradients(A2C(advantages), model, batch)
    torch.testing.assert_close(*same, rtol=0, atol=1e-6)
    assert same[0].any()


def test_a_lagging_action_is_weighted_by_its_clipped_ratio() -> None:
    model = small_model(VTrace())
    batch = of_the_present_policy(model, random_batch(4, 9))
    batch["log_prob"] = batch["log_prob"] + torch.linspace(-1, 1, 9)
    objective = VTrace(rho_clip=1.2, c_clip=0.9)
    columns = batch | objective.prepare(model, batch, Group())
    ratio = torch.where(columns["counted"] > 0, torch.linspace(1, -1, 9).exp(), 1.0)
    torch.testing.assert_close(columns["ratio"], ratio, rtol=0, atol=1e-5)
    with torch.no_grad():
        value = model(batch).value
    flags = batch["terminated"], batch["truncated"], batch["mask"]
    target, advantage = vtrace(ratio, batch["reward"], value, *flags, gamma=0.99, rho_clip=1.2, c_clip=0.9)
    torch.testing.assert_close(columns["return"], target, rtol=0, atol=1e-5)
    torch.testing.assert_close(columns["advantage"], ratio.clamp(max=1.2) * advantage, rtol=0, atol=1e-5)


def test_normalised_advantages_are_weighted_afterwards() -> None:
    model = small_model(VTrace())
    batch = of_the_present_policy(model, random_batch(4, 9))
    batch["log_prob"] = batch["log_prob"] + torch.linspace(-1, 1, 9)
    plain, normal = (
        VTrace(Advantages(lam=1.0, normalise=flag)).prepare(model, batch, Group()) for flag in (False, True)
    )
    counted, rho = plain["counted"] > 0, plain["ratio"].clamp(max=1.0)
    kept = (plain["advantage"] / rho)[counted]
    expected = (kept - kept.mean()) / kept.std(correction=0)
    torch.testing.assert_close((normal["advantage"] / rho)[counted], expected, rtol=0, atol=1e-4)
    assert torch.equal(plain["return"], normal["return"])


def test_rewards_are_clipped_where_that_is_asked_for() -> None:
    model, batch = small_model(VTrace()), random_batch(4, 9)
    clipped = batch | {"reward": batch["reward"].clamp(-0.3, 0.3)}
    asked = VTrace(Advantages(reward_clip=0.3)).prepare(model, batch, Group())
    torch.testing.assert_close(asked, VTrace(Advantages()).prepare(model, clipped, Group()))


def test_recorded_values_are_not_read() -> None:
    model, batch = small_model(VTrace()), random_batch(4, 9)
    spoilt = batch | {"value": 7 + batch["value"]}
    torch.testing.assert_close(gradients(VTrace(), model, batch), gradients(VTrace(), model, spoilt))


def test_a_learner_step_reports_the_lag() -> None:
    model = small_model(VTrace())
    engine = Gradient({"fresh": VTrace()}, epochs=1, minibatches=1).start(model, Group())
    batch = of_the_present_policy(model, random_batch(4, 9))
    assert engine.step({"fresh": batch}, progress=0.0)["train/first_ratio_error"] == pytest.approx(0.0, abs=1e-6)
    metrics = engine.step({"fresh": batch | {"log_prob": batch["log_prob"] - 0.3}}, progress=0.0)
    assert metrics["train/first_ratio_error"] == pytest.approx(math.exp(0.3) - 1, rel=0.05)
    assert metrics["train/clip_fraction"] == 1.0


def test_clips_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(MethodError, match=r"rho_clip >= c_clip > 0, got 1\.0 and 2\.0"):
        VTrace(c_clip=2.0)


def test_rows_that_lag_far_behind_do_not_stop_the_run() -> None:
    """A ratio of e^200 is infinite in float32: it counts as the clip, and the metrics stay numbers."""
    on = small_model()
    batch = random_batch(4, 6)
    batch["log_prob"] = torch.full_like(batch["log_prob"], -200.0)
    metrics = (
        Gradient({"fresh": VTrace()}, epochs=1, minibatches=1).start(on, Group()).step({"fresh": batch}, progress=0.0)
    )
    assert all(map(math.isfinite, metrics.values())) and metrics["train/clip_fraction"] == 1
