"""PPO with an adaptive penalty on the KL: the loss, what holds it, and the controller of its weight."""

import math

import pytest
import torch

from learners.behaviour import kl_from_behaviour
from learners.gradient import Gradient
from learners.group import Group
from learners.model import Model
from learners.objective import HINGE, Batch, MethodError, Objective, Sum, concluded, reduce, tagged_terms
from learners.objectives.ppo import PPO, KlCoefficient
from learners.objectives.trpo import Surrogate
from tests.learners.acting import SPACES, acted_batch, gradient, policy_of


def moved_policy(kind: str, *objectives: Objective) -> tuple[Model, Batch]:
    """A model, and a batch of what it did a few gradient steps ago."""
    on = policy_of(kind, *objectives)
    columns = acted_batch(on)
    with torch.no_grad():
        for parameter in (*on.encoder.parameters(), *on.policy.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return on, columns | PPO().prepare(on, columns, Group())


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
