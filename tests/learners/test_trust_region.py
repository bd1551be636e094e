"""TRPO's step: against a dense solve, over several learners, and that the bound holds or nothing has moved."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.behaviour import kl_from_behaviour
from learners.gradient import Gradient
from learners.group import Group
from learners.model import Model
from learners.natural_gradient import flat
from learners.not_finite import NotFinite
from learners.objective import Batch, Objective, Term
from learners.objectives.ppo import PPO
from learners.objectives.trpo import Critic, Surrogate
from learners.trust_region import SLACK, TrustRegion, TrustRegionEngine
from learners.update import UpdateError
from tests.learners.acting import SPACES, acted_batch, changed, copies, policy_of, policy_parameters
from tests.learners.pair import Pair, part_of
from tests.learners.small import small_model
from tests.learners.test_natural_gradient import explicit_fisher

EXACT = 200
"""Iterations after which the small systems here are solved."""


def region(model: Model, objective: Objective | None = None, **options) -> TrustRegionEngine:
    return TrustRegion({"fresh": objective or Surrogate()}, **options).start(model, Group())


def mean_kl(model: Model, batch: Batch) -> float:
    with torch.no_grad():
        kl = kl_from_behaviour(model(batch).dist, batch)
    return float((kl * batch["mask"]).sum() / batch["mask"].sum())


def surrogate_of(model: Model, batch: Batch) -> torch.Tensor:
    """The mean importance-weighted advantage, written out."""
    columns = batch | Surrogate().prepare(model, batch, Group())
    ratio = (model(batch).dist.log_prob(batch["action"]) - batch["log_prob"]).exp()
    gain = torch.where(columns["counted"] > 0, ratio * columns["advantage"], 0.0)
    return gain.sum() / columns["counted"].sum()


def moved(model: Model, before: dict[str, torch.Tensor]) -> torch.Tensor:
    return flat([p.detach() - before[name] for name, p in policy_parameters(model).items()]).double()


def gradient_of(value: torch.Tensor, model: Model) -> torch.Tensor:
    parameters = list(policy_parameters(model).values())
    return flat(torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)).double()


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", list(SPACES))
def test_the_step_is_that_of_a_dense_solve(kind: str, recurrent: bool) -> None:
    model = policy_of(kind, recurrent=recurrent)
    batch = acted_batch(model, 5, 8)
    weight = batch["mask"] / batch["mask"].sum()
    fisher = explicit_fisher(model, kind, batch, weight)
    fisher = fisher + 0.1 * torch.eye(len(fisher))
    gradient = gradient_of(surrogate_of(model, batch), model)
    natural = torch.linalg.solve(fisher, gradient)
    expected = (2 * 0.001 / (natural @ fisher @ natural)).sqrt() * natural
    before = copies(model)
    metrics = region(model, max_kl=0.001, iterations=EXACT).step({"fresh": batch}, progress=0.0)
    assert metrics["train/line_search_steps"] == 1, "the case must accept the whole step"
    assert (moved(model, before) - expected).norm() < 1e-5 * expected.norm() + 1e-7
    assert metrics["train/cg_residual"] < 1e-5


@pytest.mark.parametrize("kind", list(SPACES))
def test_after_earlier_updates_the_step_starts_from_the_bottom_of_the_kl(kind: str) -> None:
    """Both solutions of the damped quadratic model: back to where the KL is least, then along the natural gradient."""
    model = policy_of(kind)
    batch = acted_batch(model, 5, 8)
    with torch.no_grad():
        for parameter in policy_parameters(model).values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    weight = batch["mask"] / batch["mask"].sum()
    fisher = explicit_fisher(model, kind, batch, weight)
    fisher = fisher + 0.1 * torch.eye(len(fisher))
    drift = (kl_from_behaviour(model(batch).dist, batch) * weight).sum()
    slope, kl = gradient_of(drift, model), float(drift.detach())
    natural = torch.linalg.solve(fisher, gradient_of(surrogate_of(model, batch), model))
    back = -torch.linalg.solve(fisher, slope)
    limit = 3 * kl
    room = limit - kl - 0.5 * back @ slope
    expected = back + (2 * room / (natural @ fisher @ natural)).sqrt() * natural
    before = copies(model)
    metrics = region(model, max_kl=limit, iterations=EXACT).step({"fresh": batch}, progress=0.0)
    assert metrics["train/kl_before"] == pytest.approx(kl, rel=1e-4)
    assert metrics["train/line_search_steps"] == 1, "the case must accept the whole step"
    assert (moved(model, before) - expected).norm() < 1e-4 * expected.norm()


@settings(max_examples=40)
@given(
    kind=st.sampled_from(list(SPACES)),
    seed=st.integers(0, 1000),
    drift=st.sampled_from([0.0, 0.01, 0.3]),
    max_kl=st.sampled_from([1e-4, 0.01, 0.5]),
    recurrent=st.booleans(),
)
def test_the_bound_holds_and_the_surrogate_is_no_lower_or_nothing_has_moved(
    kind: str, seed: int, drift: float, max_kl: float, recurrent: bool
) -> None:
    model = policy_of(kind, seed=seed, recurrent=recurrent)
    batch = acted_batch(model, 3, 5, seed=seed)
    engine, published = region(model, max_kl=max_kl, backtracks=4), copies(model)
    with torch.no_grad():
        for parameter in policy_parameters(model).values():
            parameter.add_(drift * torch.randn_like(parameter))
    before, surrogate = copies(model), float(surrogate_of(model, batch).detach())
    metrics = engine.step({"fresh": batch}, progress=0.0)
    assert metrics["train/kl"] == pytest.approx(mean_kl(model, batch), rel=1e-3, abs=1e-6)
    assert mean_kl(model, batch) <= SLACK * max_kl + 1e-6
    within = metrics["train/kl_before"] <= SLACK * max_kl
    if metrics["train/step_accepted"]:
        least = surrogate if within else 0.0  # advantages have mean 0, and so has the surrogate of who acted
        assert float(surrogate_of(model, batch).detach()) >= least - 1e-5
        assert metrics["train/surrogate_gain"] >= 0
        assert changed(model, before) <= {"encoder", "core", "policy"}
    else:
        assert not changed(model, before if within else published)
        assert metrics["train/step_undone"] == (not within)


@dataclass(frozen=True)
class Treacherous(Surrogate):
    """Its gradient promises what its value then does not keep: no step can be accepted."""

    def terms(self, model, out, batch: Batch) -> dict[str, Term]:
        loss = super().terms(model, out, batch)["surrogate_loss"]
        return {"surrogate_loss": replace(loss, value=loss.value - 2 * loss.value.detach())}


def test_a_failed_line_search_leaves_every_bit() -> None:
    model = policy_of()
    batch, before = acted_batch(model), copies(model)
    metrics = region(model, Treacherous(), backtracks=6).step({"fresh": batch}, progress=0.0)
    assert metrics["train/step_accepted"] == 0 and metrics["train/line_search_steps"] == 6
    assert metrics["train/surrogate_gain"] == 0 and metrics["train/kl"] == metrics["train/kl_before"]
    assert not changed(model, before)


def test_what_broke_the_bound_is_undone_where_no_step_mends_it() -> None:
    model = policy_of()
    batch, published = acted_batch(model), copies(model)
    engine = region(model, max_kl=0.01, backtracks=2)
    with torch.no_grad():
        model.policy.linear.weight.mul_(-3)
    metrics = engine.step({"fresh": batch}, progress=0.0)
    assert metrics["train/kl_before"] > 1 and metrics["train/step_undone"] == 1
    assert metrics["train/kl"] < 1e-6 and not changed(model, published)


def test_a_restored_engine_undoes_to_the_restored_policy() -> None:
    model, other = policy_of(), policy_of(seed=1)
    engine = region(model, max_kl=0.01, backtracks=2)
    model.load_state_dict(other.state_dict())
    engine.restore(engine.state())
    batch = acted_batch(model)
    with torch.no_grad():
        model.policy.linear.weight.mul_(-3)
    assert engine.step({"fresh": batch}, progress=0.0)["train/step_undone"] == 1
    assert not changed(model, other.state_dict())


def test_without_advantage_there_is_no_step() -> None:
    model = policy_of()
    batch = acted_batch(model) | {"reward": torch.zeros(6, 9), "value": torch.zeros(6, 9)}
    with torch.no_grad():
        for parameter in model.value.parameters():
            parameter.zero_()
    before = copies(model)
    metrics = region(model).step({"fresh": batch}, progress=0.0)
    assert metrics["train/step_accepted"] == 0 and not changed(model, before)
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_critic_and_the_policy_move_apart() -> None:
    model = policy_of(value_encoder=policy_of().spec.encoder)
    batch, before = acted_batch(model), copies(model)
    region(model).step({"fresh": batch}, progress=0.0)
    assert changed(model, before) == {"encoder", "policy"}
    before = copies(model)
    engine = Gradient({"fresh": Critic()}).start(model, Group())
    assert engine.step({"fresh": batch}, progress=0.0)["train/value_loss"] > 0
    assert changed(model, before) == {"value", "value_encoder"}


def test_the_critics_loss_is_ppos() -> None:
    model = policy_of()
    batch = acted_batch(model)
    columns = batch | PPO().prepare(model, batch, Group())
    theirs = PPO(value_clip=0.1).terms(model, model(batch), columns)["value_loss"].value
    assert torch.equal(Critic(clip=0.1).terms(model, model(batch), columns)["value_loss"].value, theirs)
    both = Critic().prepare(model, batch, Group())
    assert all(torch.equal(column, columns[name]) for name, column in both.items())


@pytest.mark.parametrize("column", ["reward", "observation", "policy_logits"])
def test_what_is_no_number_stops_before_anything_moves(column: str) -> None:
    model = policy_of()
    batch, before = acted_batch(model), copies(model)
    decided = batch["mask"].nonzero()[0].tolist()
    batch[column][decided[0], decided[1]] = math.nan
    with pytest.raises(NotFinite, match=rf"became nan; .* columns fresh/.*{column}.*parameters are those before"):
        region(model).step({"fresh": batch}, progress=0.0)
    assert not changed(model, before)


def test_every_fifth_decision_is_enough_for_a_direction() -> None:
    whole, part = policy_of(), policy_of()
    batch = acted_batch(whole, 40, 9)
    steps = []
    for model, every in ((whole, 1), (part, 5)):
        before = copies(model)
        metrics = region(model, fisher_every=every).step({"fresh": batch}, progress=0.0)
        assert metrics["train/step_accepted"] == 1
        steps.append(moved(model, before))
    assert torch.cosine_similarity(*steps, dim=0) > 0.95
    assert not torch.allclose(*steps, rtol=1e-3)


def test_mistakes_say_what_to_change() -> None:
    with pytest.raises(UpdateError, match="record_distribution=True"):
        TrustRegion({"fresh": Surrogate()}).start(small_model(), Group())
    with pytest.raises(UpdateError, match=r"one table, got \['a', 'b'\]"):
        TrustRegion({"a": Surrogate(), "b": Surrogate()})
    for wrong in (
        {"max_kl": 0.0},
        {"shrink": 1.0},
        {"damping": -1.0},
        {"backtracks": 0},
        {"max_kl": math.nan},
        {"max_kl": math.inf},
    ):
        with pytest.raises(UpdateError, match=next(iter(wrong))):
            TrustRegion({"fresh": Surrogate()}, **wrong)


def trained(group: Group, batch: Batch) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Parameters and metrics after two learner steps: PPO with a tight KL target and its hinge, then TRPO."""
    ppo = PPO(kl_target=1e-6)
    model = policy_of("categorical", ppo, seed=group.rank + 3)
    group.broadcast(model)
    engines = [
        Gradient({"fresh": ppo}, lr=1e-3, epochs=3, minibatches=1).start(model, group),
        TrustRegion({"fresh": Surrogate()}).start(model, group),
    ]
    metrics = [engine.step({"fresh": batch}, progress=0.0) for _ in range(2) for engine in engines]
    return model.state_dict(), metrics


def trained_on_part(group: Group) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    return trained(group, part_of(acted_batch(policy_of(seed=3)), group))


def test_two_learners_on_uneven_parts_equal_one_on_the_whole(pair: Pair) -> None:
    halves = pair(trained_on_part)
    weights, metrics = trained(Group(), acted_batch(policy_of(seed=3)))
    assert [step["train/step_accepted"] for step in metrics[1::2]] == [1, 1]
    assert all(step["train/minibatch_kl"] > 2e-6 for step in metrics[::2]), "the hinge must be at work"
    assert [step["train/kl_coefficient"] for step in metrics[::2]] == [1, 2]
    for name, tensor in weights.items():
        assert torch.equal(halves[0][0][name], halves[1][0][name]), name
        torch.testing.assert_close(halves[0][0][name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    for mine, theirs in zip(halves[0][1], metrics, strict=True):
        assert {tag: value for tag, value in mine.items() if tag != "train/cg_residual"} == pytest.approx(
            {tag: value for tag, value in theirs.items() if tag != "train/cg_residual"}, rel=1e-3, abs=1e-5
        )
