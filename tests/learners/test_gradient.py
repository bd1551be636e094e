import math
from dataclasses import dataclass, replace

import pytest
import torch
import torch.multiprocessing as processes
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.gradient import SMALL, Gradient, norm
from learners.group import Group
from learners.nets.encoders import Mlp
from learners.not_finite import NotFinite
from learners.objective import Batch, MethodError, Objective, Sum, Term, reduce
from learners.objectives.cpc import Cpc
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.update import Average, Normalise, UpdateError
from tests.learners.reading import RandomRows, learner_of, model_of
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


def test_a_nan_in_a_gradient_alone_names_its_term() -> None:
    @dataclass(frozen=True)
    class Root(Pull):
        """Finite at 0, where its slope is not."""

        group: str = "root"

        def terms(self, model, out, batch: Batch) -> dict[str, Term]:
            return {"error": Term((out.value - out.value.detach()).sqrt(), batch["mask"])}

    both = Sum({"pull": (1.0, Pull()), "root": (1.0, Root())})
    engine = Gradient({"fresh": both}).start(small_model(), Group())
    with pytest.raises(
        NotFinite, match=r'^train/gradient_norm became nan; .* term root/error of Root on table "fresh"'
    ):
        engine.step({"fresh": random_batch(4, 4)}, progress=0.0)


def joint_parameters(update: Gradient) -> tuple[list[torch.Tensor], list[int]]:
    """Parameters after a learner step on frames, and how many rows the encoder differentiated at once."""
    objective = update.objectives["fresh"]
    model = model_of(objective, images=True)
    rows: list[int] = []
    model.encoder.register_forward_hook(
        lambda _, inputs, out: rows.append(len(out)) if torch.is_grad_enabled() and model.training else None
    )
    learner = learner_of(model, update, rows=RandomRows(images=True))
    torch.manual_seed(5)
    learner.step()
    return [parameter.detach().clone() for parameter in model.parameters()], rows


@pytest.mark.parametrize(
    "objective",
    [PPO(), Sum({"ppo": (1.0, PPO()), "curl": (0.5, Curl())}), Sum({"ppo": (1.0, PPO()), "cpc": (0.5, Cpc(steps=2))})],
    ids=["ppo", "curl", "cpc"],
)
def test_a_minibatch_in_parts_gives_the_step_of_the_whole(objective: Objective) -> None:
    """Also for losses that compare rows, and with the same shuffles: what is left is rounding."""
    slow = tuple(Average(part) for part in objective.slow)
    whole = Gradient({"fresh": objective}, lr=0.01, epochs=2, minibatches=2, then=slow)
    parameters, all_rows = joint_parameters(whole)
    in_parts, few_rows = joint_parameters(replace(whole, accumulate=3))
    assert max(few_rows) <= max(all_rows) // 3 + 1
    for one, other in zip(parameters, in_parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=2e-5)


def test_more_parts_than_rows_are_as_many_as_rows() -> None:
    update = Gradient({"fresh": PPO()}, epochs=1, minibatches=2)
    (one, _), (other, rows) = joint_parameters(update), joint_parameters(replace(update, accumulate=1000))
    assert set(rows) == {1}
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_no_parts_at_all_are_refused() -> None:
    with pytest.raises(UpdateError, match="accumulate is 0, wanted at least 1"):
        Gradient({"fresh": PPO()}, accumulate=0)


def compare_compiled(_: int) -> None:
    """In a process without the type checks of tests, which torch.compile cannot translate."""
    results = []
    for compiled in (False, True):
        model = model_of(images=False)
        update = Gradient({"fresh": PPO()}, lr=0.01, epochs=2, minibatches=2, compile=compiled)
        learner = learner_of(model, update, rows=RandomRows(images=False))
        torch.manual_seed(5)
        learner.step()
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*results, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_compiled_encoders_learn_the_same() -> None:
    processes.spawn(compare_compiled, nprocs=1)


@pytest.mark.parametrize("width", [3, SMALL])
def test_the_norm_is_that_of_torch(width: int) -> None:
    gradients = [torch.randn(4, width), torch.randn(2, 5, 3, 3).to(memory_format=torch.channels_last), torch.randn(())]
    assert norm(gradients).item() == pytest.approx(torch.nn.utils.get_total_norm(gradients).item())


@pytest.mark.parametrize("most", [0.0, 1e-3, 100.0])
def test_gradients_are_clipped_as_by_torch(most: float) -> None:
    """Adam's first step hides lengths: what it divided is seen in the gradients that it leaves."""
    clipped, free = small_model(PPO()), small_model(PPO())
    free.load_state_dict(clipped.state_dict())
    for model, limit in ((clipped, most), (free, math.inf)):
        engine = Gradient({"fresh": PPO()}, epochs=1, minibatches=1, max_gradient_norm=limit).start(model, Group())
        torch.manual_seed(5)
        engine.step({"fresh": random_batch(4, 4)}, progress=0.0)
    torch.nn.utils.clip_grad_norm_(free.parameters(), most)
    for mine, other in zip(clipped.parameters(), free.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@settings(max_examples=50, deadline=None)
@given(
    masks=st.lists(st.integers(0, 2), min_size=1, max_size=6),
    weights=st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=6, max_size=6),
)
def test_reduce_is_the_weighted_sum_of_masked_means(masks: list[int], weights: list[float]) -> None:
    """Whatever masks terms share: slowly, one after the other."""
    generator = torch.Generator().manual_seed(len(masks))
    shared = [(torch.rand(3, 4, generator=generator) > 0.4).float(), torch.zeros(3, 4), torch.ones(3, 4)]
    values = [torch.randn(3, 4, generator=generator).requires_grad_() for _ in masks]
    terms = {
        f"term{i}": Term(values[i], shared[mask], weight)
        for i, (mask, weight) in enumerate(zip(masks, weights, strict=False))
    }
    loss, means = reduce(terms, Group())
    slow = {n: (term.value * term.mask).sum() / term.mask.sum().clamp(min=1) for n, term in terms.items()}
    assert means.keys() == terms.keys()
    for name, mean in slow.items():
        torch.testing.assert_close(means[name], mean.detach())
    torch.testing.assert_close(loss, sum(terms[name].weight * mean for name, mean in slow.items()))
    if any(term.weight for term in terms.values()):
        loss.backward()
    for term, value in zip(terms.values(), values, strict=True):
        wanted = term.weight * term.mask / term.mask.sum().clamp(min=1)
        torch.testing.assert_close(torch.zeros_like(value) if value.grad is None else value.grad, wanted)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_minibatch_without_rows_is_none(accumulate: int) -> None:
    """With uneven masks one of several learners may have fewer rows than minibatches."""
    steps = []
    for minibatches in (1, 5):
        objective = PPO()
        model = small_model(objective, value_encoder=Mlp((4,)))
        batch = random_batch(1, 3)
        batch["mask"] = torch.tensor([[1.0, 0.0, 0.0]])
        update = Gradient({"fresh": objective}, epochs=1, minibatches=minibatches, accumulate=accumulate)
        engine = update.start(model, Group())
        steps.append(next(engine._descend({"fresh": batch | objective.prepare(model, batch, Group())})))
        assert all(map(math.isfinite, engine.step({"fresh": batch}, progress=0.0).values()))
    assert steps[0] == pytest.approx(steps[1], abs=1e-6)
    assert steps[0]["train/gradient_norm"] > 0
