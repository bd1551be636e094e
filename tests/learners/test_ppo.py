"""PPO's loss against a loop over rows, and its limit, the plain policy gradient."""

import math
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from learners.advantages import Advantages, successor_values
from learners.behaviour import kl_from_behaviour
from learners.distributions import Categorical
from learners.gradient import Gradient
from learners.group import Group
from learners.model import ActorCritic, Model, Output
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp
from learners.objective import HINGE, Batch, MethodError, Objective, Sum, Term, concluded, reduce, tagged_terms
from learners.objectives.ppo import PPO, KlCoefficient
from learners.objectives.trpo import Surrogate
from replay.schema import Column
from tests.learners.acting import SPACES, acted_batch, policy_of


def model(*, recurrent: bool = False, normalise: bool = False) -> Model:
    torch.manual_seed(0)
    spec = ActorCritic(Mlp((16,)), core=Gru(8) if recurrent else None, normalise=normalise)
    built = spec.build({"observation": Column("float32", (3,))}, gym.spaces.Discrete(4))
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
        "core_state": torch.zeros(batch_size, rows, 8),
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
    return replace(out, dist=Categorical(out.dist.logits.double()), value=out.value.double())


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


def gradient(of: Tensor, on: Model) -> Tensor:
    parameters = [parameter for name, parameter in on.named_parameters() if name.startswith(("encoder", "policy"))]
    return torch.cat([g.flatten() for g in torch.autograd.grad(of, parameters, retain_graph=True)])


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


@pytest.mark.parametrize("recurrent", [False, True])
def test_values_are_recorded_ones_except_where_nobody_acted(recurrent: bool) -> None:
    on, columns = model(recurrent=recurrent), batch()
    with torch.no_grad():
        value, own = successor_values(on, columns), on(columns).value
    assert torch.equal(value[columns["mask"] == 1], columns["value"][columns["mask"] == 1])
    torch.testing.assert_close(value[columns["mask"] == 0], own[columns["mask"] == 0])
    assert (columns["value"] == batch()["value"]).all(), "a recorded column was rewritten"


def test_values_where_everybody_acted() -> None:
    columns = batch()
    columns["mask"] = torch.ones_like(columns["mask"])
    assert torch.equal(successor_values(model(), columns), columns["value"])


def test_truncated_rows_bootstrap_from_the_model() -> None:
    on, columns = model(), batch()
    out = PPO(normalise_advantage=False, gamma=0.9).prepare(on, columns, Group())
    with torch.no_grad():
        final = on(columns).value[1, 3]
    expected = columns["reward"][1, 2] + 0.9 * final - columns["value"][1, 2]
    torch.testing.assert_close(out["advantage"][1, 2], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(out["return"], out["advantage"] + successor_values(on, columns).detach())


def test_a_last_row_that_was_acted_on_does_not_count() -> None:
    """Overlapping windows have mask 1 there, but no successor."""
    columns = batch()
    columns["mask"][:, -1] = 1
    out = prepared(PPO(), model(), columns)
    assert (out["counted"][:, -1] == 0).all()
    terms = PPO().terms(model(), model()(columns), out)
    assert all((term.mask[:, -1] == 0).all() for term in terms.values())


def test_advantages_are_normalised_over_the_decided_rows() -> None:
    columns = prepared(PPO(), model(), batch())
    kept = columns["advantage"][columns["mask"] > 0]
    assert kept.mean() == pytest.approx(0, abs=1e-6)
    assert kept.std(correction=0) == pytest.approx(1, abs=1e-6)
    raw = PPO(normalise_advantage=False).prepare(model(), batch(), Group())
    assert raw["advantage"][batch()["mask"] > 0].std(correction=0) != pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(raw["return"], columns["return"])


def test_reward_clip_and_scale() -> None:
    on, columns = model(normalise=True), batch()
    columns["reward"] *= 5
    torch.testing.assert_close(Advantages(reward_clip=1.0).rewards(on, columns), columns["reward"].clamp(-1, 1))
    on.moments_by_column["discounted_return"].var.fill_(4.0)
    scaled = Advantages(scale_reward=True).rewards(on, columns)
    torch.testing.assert_close(scaled, columns["reward"] / 2, rtol=1e-6, atol=0)
    columns["reward"][0, 0] = 1e9
    assert Advantages(scale_reward=True).rewards(on, columns)[0, 0] == 10
    with pytest.raises(ValueError, match="normalise=True"):
        Advantages(scale_reward=True).rewards(model(), columns)


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


def moved_policy(kind: str, *objectives: Objective) -> tuple[Model, Batch]:
    """A model, and a batch of what it did a few gradient steps ago."""
    on = policy_of(kind, *objectives)
    columns = acted_batch(on)
    with torch.no_grad():
        for parameter in (*on.encoder.parameters(), *on.policy.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return on, prepared(PPO(), on, columns)


@pytest.mark.parametrize("kind", list(SPACES))
def test_kl_penalty_of_weight_0_is_the_unclipped_surrogate(kind: str) -> None:
    """With beta 0 and no hinge; TRPO's surrogate is the same function."""
    objective = PPO(kl_target=0.01, kl_coefficient=0.0, kl_hinge=math.inf, entropy=0.0, value=0.0)
    on, columns = moved_policy(kind, objective)
    losses = [
        reduce(tagged_terms(each, on, on(columns), columns), Group())[0]
        for each in (objective, PPO(clip=math.inf, entropy=0.0, value=0.0), Surrogate())
    ]
    gradients = [gradient(loss, on) for loss in losses]
    assert gradients[0].any()
    for loss, of in zip(losses[1:], gradients[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(of, gradients[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("beyond", [True, False])
@pytest.mark.parametrize("kind", list(SPACES))
def test_the_penalty_is_beta_times_the_exact_kl_and_a_hinge(kind: str, beyond: bool) -> None:
    target = 1e-4 if beyond else 10.0
    objective = PPO(kl_target=target, kl_coefficient=0.7, entropy=0.0, value=0.0)
    on, columns = moved_policy(kind, objective)
    loss, means = reduce(tagged_terms(objective, on, on(columns), columns), Group())
    kl = (kl_from_behaviour(on(columns).dist, columns) * columns["counted"]).sum() / columns["counted"].sum()
    plain = reduce(tagged_terms(Surrogate(), on, on(columns), columns), Group())[0]
    hinge = HINGE * (kl - 2 * target).clamp(min=0).square()
    assert (hinge > 0) == beyond, "the case must be on the side that it is for"
    torch.testing.assert_close(gradient(loss, on), gradient(plain + 0.7 * kl + hinge, on), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(means["train/minibatch_kl"], kl.detach())
    torch.testing.assert_close(means["train/kl_penalty"], 0.7 * kl.detach())


def test_the_coefficient_follows_the_kl() -> None:
    coefficient = KlCoefficient(1.0)
    for kl, expected in [(0.016, 2.0), (0.014, 2.0), (0.0067, 2.0), (0.0066, 1.0), (0.1, 2.0)]:
        coefficient.adapt(kl, 0.01)
        assert float(coefficient.value) == expected
    for kl, bound in ((0.0, KlCoefficient.least), (1.0, KlCoefficient.most)):
        for _ in range(300):
            coefficient.adapt(kl, 0.01)
        assert bound / 2 < float(coefficient.value) < 2 * bound, "from 0 or infinity it could not come back"
    never = KlCoefficient(0.0)
    never.adapt(1.0, 0.01)
    assert float(never.value) == 0


@pytest.mark.parametrize("target", [0.0, -0.1, math.nan])
def test_a_target_that_nothing_can_meet_is_refused(target: float) -> None:
    with pytest.raises(MethodError, match="kl_target"):
        PPO(kl_target=target)


@pytest.mark.parametrize("target", [0.003, 0.03])
def test_the_controller_brings_the_kl_near_its_target(target: float) -> None:
    objective = PPO(kl_target=target)
    on = policy_of("categorical", objective)
    engine = Gradient({"fresh": objective}, lr=0.02, epochs=5, minibatches=1).start(on, Group())
    steps = [engine.step({"fresh": acted_batch(on, 16, 17, seed=seed)}, progress=0.0) for seed in range(32)]
    late = [step["train/kl"] for step in steps[20:]]
    assert target / 2 < sum(late) / len(late) < 2 * target
    assert len({step["train/kl_coefficient"] for step in steps}) > 2, "the controller never had anything to do"


def test_the_closing_kl_is_that_of_the_whole_batch() -> None:
    objective = PPO(kl_target=0.01)
    on, columns = moved_policy("gaussian", objective)
    kl = (kl_from_behaviour(on(columns).dist, columns) * columns["counted"]).sum() / columns["counted"].sum()
    metrics = concluded(Sum({"ppo": (1.0, objective)}), on, columns, Group())
    assert metrics["train/kl"] == pytest.approx(float(kl.detach())) and metrics["train/kl_coefficient"] == 1.0
    assert float(on.heads["kl"].value) == 2.0
    assert concluded(PPO(), on, columns, Group()) == {}


def test_a_checkpoint_holds_the_coefficient() -> None:
    objective = PPO(kl_target=1e-5)
    first, second = (policy_of("categorical", objective, seed=seed) for seed in (0, 1))
    batches = [acted_batch(first, seed=seed) for seed in range(4)]
    engines = [Gradient({"fresh": objective}, lr=0.01).start(each, Group()) for each in (first, second)]
    for columns in batches[:3]:
        engines[0].step({"fresh": columns}, progress=0.0)
    assert float(first.heads["kl"].value) == 8.0
    second.load_state_dict(first.state_dict())
    engines[1].restore({name: tensor.clone() for name, tensor in engines[0].state().items()})
    random = torch.get_rng_state()
    metrics = []
    for engine in engines:
        torch.set_rng_state(random)
        metrics.append(engine.step({"fresh": batches[3]}, progress=0.0))
    assert metrics[0] == metrics[1] and metrics[1]["train/kl_coefficient"] == 8.0
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
