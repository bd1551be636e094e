"""PPO's loss against a loop over rows, and its limit, the plain policy gradient."""

import math
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from learners.distributions import Categorical
from learners.group import Group
from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp
from learners.objective import Batch, Term, reduce, tagged_terms
from learners.objectives.ppo import PPO
from learners.output import Output
from replay.schema import Column
from tests.learners.acting import gradient


def model() -> Model:
    torch.manual_seed(0)
    built = ActorCritic(Mlp((16,))).build({"observation": Column("float32", (3,))}, gym.spaces.Discrete(4))
    with torch.no_grad():
        built.policy.linear.weight.mul_(100)  # away from uniform, so that ratios matter
    return built


def batch(batch_size: int = 3, rows: int = 7, seed: int = 0) -> Batch:
    """Rows with an episode end in stream 1, and a last row that belongs to the next window."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    columns = {
        "observation": normal(batch_size, rows, 3),
        "action": torch.randint(0, 4, (batch_size, rows), generator=generator),
        "log_prob": -1.4 + 0.3 * normal(batch_size, rows),
        "reward": normal(batch_size, rows),
        "value": normal(batch_size, rows),
        "step": torch.arange(1, rows + 1).expand(batch_size, rows).clone(),
    }
    columns |= {name: torch.zeros(batch_size, rows) for name in ("terminated", "truncated")}
    columns["mask"] = torch.ones(batch_size, rows)
    columns["mask"][:, -1] = 0
    columns["truncated"][1, 2], columns["mask"][1, 3], columns["step"][1, 4] = 1, 0, 0
    return columns


def prepared(objective: PPO, on: Model, columns: Batch) -> Batch:
    return columns | objective.prepare(on, columns, Group())


def double(columns: Batch) -> Batch:
    return {name: column.double() if column.is_floating_point() else column for name, column in columns.items()}


def exact(out: Output) -> Output:
    """The same output in float64, so that the loss's own arithmetic can be compared to the last digits."""
    return out.having(dist=Categorical(out.dist.logits.double()), value=out.value.double())


def mean(terms: dict[str, Term], name: str) -> float:
    return float((terms[name].value.detach() * terms[name].mask).sum() / terms[name].mask.sum())


@pytest.mark.parametrize("value_clip", [None, 0.3])
def test_terms_equal_a_loop_over_rows(value_clip: float | None) -> None:
    objective, on = PPO(value_clip=value_clip), model()
    columns = double(prepared(objective, on, batch()))
    out = exact(on(batch()))
    terms = objective.terms(on, out, columns)
    policy, value, entropy, kl, clipped, rows = 0.0, 0.0, 0.0, 0.0, 0, 0
    for stream, row in columns["mask"].nonzero().tolist():
        probability = out.dist.logits[stream, row].detach().softmax(0)
        ratio = float(probability[columns["action"][stream, row]] / columns["log_prob"][stream, row].exp())
        advantage, target = (float(columns[name][stream, row]) for name in ("advantage", "return"))
        policy -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        estimate, recorded = float(out.value[stream, row].detach()), float(columns["value"][stream, row])
        error = (estimate - target) ** 2
        if value_clip is not None:
            near = recorded + min(max(estimate - recorded, -value_clip), value_clip)
            error = max(error, (near - target) ** 2)
        value += error / 2
        entropy += float((probability * probability.log()).sum())
        kl += ratio - 1 - math.log(ratio)
        clipped += abs(ratio - 1) > 0.2
        rows += 1
    expected = {"policy_gradient_loss": policy, "value_loss": value, "entropy_loss": entropy}
    expected |= {"approx_kl": kl, "clip_fraction": clipped}
    for name, total in expected.items():
        assert mean(terms, name) == pytest.approx(total / rows, abs=1e-9), name
    assert 0 < clipped < rows, "the case must clip some rows and leave others"
    assert {name: term.weight for name, term in terms.items() if term.weight} == {
        "policy_gradient_loss": 1.0,
        "value_loss": 0.5,
        "entropy_loss": 0.01,
    }


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss"), [(1, 1.5, -1.2), (1, 0.5, -0.5), (-1, 1.5, 1.5), (-1, 0.5, 0.8)]
)
def test_hand_computed_clipping(advantage: float, ratio: float, loss: float) -> None:
    """The pessimistic side: a gain is capped, a harm never is."""
    one = torch.ones(1, 1)
    columns = {
        "advantage": advantage * one,
        "return": one,
        "counted": one,
        "explained_variance": one,
        "action": torch.zeros(1, 1, dtype=torch.int64),
        "log_prob": -math.log(ratio) * one,
        "value": one,
    }
    certain = Categorical(torch.zeros(1, 1, 1))
    out = SimpleNamespace(dist=certain, value=3 * one)
    terms = PPO().terms(SimpleNamespace(), out, columns)
    assert mean(terms, "policy_gradient_loss") == pytest.approx(loss)
    assert mean(terms, "value_loss") == pytest.approx(2.0)
    assert mean(terms, "ratio_error") == pytest.approx(0.5)


@pytest.mark.parametrize("clip", [math.inf, 0.2])
def test_first_gradient_is_the_policy_gradient(clip: float) -> None:
    """At the acting policy all ratios are 1; with clip=inf one epoch of PPO is the plain policy gradient, eq. 1."""
    objective, on, columns = PPO(clip=clip, entropy=0.0, value=0.0), model(), batch()
    out, columns = exact(on(columns)), double(prepared(objective, on, columns))
    columns["log_prob"] = out.dist.log_prob(columns["action"]).detach()
    loss, means = reduce(tagged_terms(objective, on, out, columns), Group())
    weight = columns["mask"] * columns["advantage"]
    plain = -(weight * out.dist.log_prob(columns["action"])).sum() / columns["mask"].sum()
    torch.testing.assert_close(gradient(loss, on), gradient(plain, on), rtol=0, atol=1e-6)
    assert means["train/ratio_error"] == 0
    assert means["train/approx_kl"] == 0


def test_clip_infinity_is_the_importance_weighted_policy_gradient() -> None:
    objective, on = PPO(clip=math.inf), model()
    columns = prepared(objective, on, batch())
    out = on(columns)
    term = objective.terms(on, out, columns)["policy_gradient_loss"]
    ratio = (out.dist.log_prob(columns["action"]) - columns["log_prob"]).exp()
    torch.testing.assert_close(term.value * term.mask, -ratio * columns["advantage"] * columns["mask"])


def test_a_last_row_that_was_acted_on_does_not_count() -> None:
    """Overlapping windows have mask 1 there, but no successor."""
    columns = batch()
    columns["mask"][:, -1] = 1
    out = prepared(PPO(), model(), columns)
    assert (out["counted"][:, -1] == 0).all()
    terms = PPO().terms(model(), model()(columns), out)
    assert all((term.mask[:, -1] == 0).all() for term in terms.values())


def test_masked_rows_do_not_matter() -> None:
    """Whatever stands in rows without a decision, the loss and its gradient stay the same and finite."""
    objective, on = PPO(), model()
    columns = prepared(objective, on, batch())
    spoilt = dict(columns)
    for name in ("log_prob", "advantage", "return", "value"):
        spoilt[name] = torch.where(columns["mask"] > 0, columns[name], -1e6)
    losses = [reduce(tagged_terms(objective, on, on(each), each), Group())[0] for each in (columns, spoilt)]
    torch.testing.assert_close(losses[0], losses[1])
    gradients = [gradient(loss, on) for loss in losses]
    torch.testing.assert_close(*gradients)
    assert gradients[0].any()


def test_shuffled_rows_give_the_windows_loss() -> None:
    objective, on = PPO(), model()
    columns = prepared(objective, on, batch())
    decided = columns["mask"].flatten().nonzero().flatten()
    order = decided[torch.randperm(len(decided))]
    flat = {name: column.flatten(0, 1)[order].unsqueeze(1) for name, column in columns.items()}
    losses = [reduce(tagged_terms(objective, on, on(each), each), Group())[0] for each in (columns, flat)]
    torch.testing.assert_close(losses[0], losses[1])
