from dataclasses import dataclass

import pytest
import torch

from learners.gradient import Gradient, NotFinite
from learners.group import Group
from learners.objective import Batch, MethodError, Objective, Sum, Term, reduce
from learners.objectives.ppo import PPO
from learners.update import Average, Normalise, UpdateError
from tests.learners.small import random_batch, small_model


@dataclass(frozen=True)
class Pull(Objective):
    """Pulls the value towards a number; a stand-in whose gradient is known."""

    target: float = 1.0
    group: str = "pull"
    scale: float = 1.0

    def terms(self, model, out, batch: Batch) -> dict[str, Term]:
        return {"error": Term(self.scale * (out.value - self.target).square(), batch["mask"])}


def gradient_of(objective: Objective, batch: Batch) -> torch.Tensor:
    model = small_model(objective)
    prepared = batch | objective.prepare(model, batch, Group())
    terms = objective.terms(model, model(prepared), prepared)
    reduce(terms, Group())[0].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_a_sum_has_the_weighted_sum_of_gradients() -> None:
    batch = random_batch(4, 6)
    ppo, pull = PPO(), Pull()
    both = gradient_of(Sum({"ppo": (2.0, ppo), "pull": (0.5, pull)}), batch)
    model = small_model(pull)
    reduce(pull.terms(model, model(batch), batch), Group())[0].backward()
    pulled = torch.cat([
        (p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in model.parameters()
    ])  # fmt: skip
    torch.testing.assert_close(both, 2.0 * gradient_of(ppo, batch) + 0.5 * pulled, rtol=1e-5, atol=1e-7)


def test_a_sum_of_parts_with_the_same_terms_is_refused() -> None:
    model, batch = small_model(), random_batch(4, 4)
    both = Sum({"a": (1.0, Pull()), "b": (1.0, Pull(-1.0))})
    with pytest.raises(MethodError, match="pull/error"):
        both.terms(model, model(batch), batch)


def test_reduce_averages_over_the_mask_and_leaves_metrics_out_of_the_loss() -> None:
    value, mask = torch.tensor([[1.0, 2.0, 50.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    loss, means = reduce({"a": Term(value, mask, 2.0), "b": Term(value, torch.ones(1, 3), 0.0)}, Group())
    assert loss.item() == pytest.approx(3.0)
    assert means["a"].item() == pytest.approx(1.5) and means["b"].item() == pytest.approx(53 / 3)


def test_reduce_names_a_term_of_the_wrong_shape() -> None:
    term = Term(torch.zeros(1, 3), torch.zeros(1, 3))
    object.__setattr__(term, "mask", torch.zeros(1, 2))  # past the type check that only tests have
    with pytest.raises(ValueError, match=r"term a: value \(1, 3\), mask \(1, 2\); both must be \(B, T\)"):
        reduce({"a": term}, Group())


def test_two_tables_move_the_parameters_in_one_step() -> None:
    model = small_model()
    objectives = {"fresh": Pull(1.0), "history": Pull(-1.0, group="other")}
    engine = Gradient(objectives, lr=0.01, epochs=1, minibatches=1).start(model, Group())
    before = [parameter.clone() for parameter in model.parameters()]
    metrics = engine.step({"fresh": random_batch(2, 4), "history": random_batch(3, 4, seed=1)}, progress=0.0)
    assert {"pull/error", "other/error"} <= metrics.keys() and metrics["train/gradient_norm"] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_tables_with_the_same_terms_are_refused() -> None:
    engine = Gradient({"a": Pull(), "b": Pull()}).start(small_model(), Group())
    with pytest.raises(UpdateError, match="pull/error"):
        engine.step({"a": random_batch(4, 4), "b": random_batch(4, 4)}, progress=0.0)


def test_a_gradient_outside_the_declaration_is_refused() -> None:
    @dataclass(frozen=True)
    class Sneaky(Pull):
        trains: tuple[str, ...] = ("encoder",)

    engine = Gradient({"fresh": Sneaky()}).start(small_model(), Group())
    with pytest.raises(UpdateError, match=r"value.*received a gradient"):
        engine.step({"fresh": random_batch(4, 4)}, progress=0.0)


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_term() -> None:
    model = small_model()
    before = [parameter.clone() for parameter in model.parameters()]
    engine = Gradient({"fresh": Pull(scale=float("nan"))}).start(model, Group())
    with pytest.raises(NotFinite, match=r"pull/error, .* became nan; .* encoder"):
        engine.step({"fresh": random_batch(4, 4)}, progress=0.0)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_slow_copy_that_nothing_moves_is_refused() -> None:
    @dataclass(frozen=True)
    class Slow(Pull):
        slow: tuple[str, ...] = ("encoder",)

    with pytest.raises(UpdateError, match='add Average\\("encoder"'):
        Gradient({"fresh": Slow()}).start(small_model(Slow()), Group())


def test_an_average_moves_its_copy_by_the_rate() -> None:
    @dataclass(frozen=True)
    class Slow(Pull):
        slow: tuple[str, ...] = ("encoder",)

    model = small_model(Slow())
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in model.slow("encoder").parameters()]
    Average("encoder", rate=0.25).start(model, Group()).step({}, progress=0.0)
    for old, new, source in zip(before, model.slow("encoder").parameters(), model.encoder.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * source)


def test_kl_beyond_its_bound_ends_the_learner_step_early() -> None:
    batch = random_batch(8, 9)
    engine = Gradient({"fresh": PPO()}, lr=0.5, epochs=10, minibatches=2, max_kl=1e-4).start(small_model(), Group())
    assert engine.step({"fresh": batch}, progress=0.0)["train/minibatches_done"] < 1


def test_the_learning_rate_falls_to_nothing() -> None:
    engine = Gradient({"fresh": Pull()}, lr=0.1, anneal=True).start(small_model(), Group())
    assert engine.step({"fresh": random_batch(4, 4)}, progress=0.75)["train/learning_rate"] == pytest.approx(0.025)


def test_moments_follow_the_decided_rows() -> None:
    model, batch = small_model(normalise=True), random_batch(16, 8)
    Normalise("fresh").start(model, Group()).step({"fresh": batch}, progress=0.0)
    rows = batch["observation"][batch["mask"] > 0]
    torch.testing.assert_close(model.moments_by_column["observation"].mean, rows.mean(0), rtol=1e-4, atol=1e-5)


def test_normalise_without_moments_says_what_to_do() -> None:
    with pytest.raises(UpdateError, match="normalise=True"):
        Normalise("fresh").start(small_model(), Group())
