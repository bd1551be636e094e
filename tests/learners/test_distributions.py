"""Distributions against torch's own, and samples against their probabilities."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import distributions as reference

from learners.distributions import Bernoulli, Categorical, MultiDiscrete, distribution_for
from learners.gaussians import DiagonalGaussian, SquashedGaussian, log_slope
from learners.objective import MethodError


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(kind: str, seed: int) -> tuple[object, reference.Distribution, torch.Tensor]:
    """Ours, torch's, and actions, for rows (3, 4)."""
    if kind == "categorical":
        logits = random(3, 4, 5, seed=seed)
        return Categorical(logits), reference.Categorical(logits=logits), torch.randint(0, 5, (3, 4))
    if kind == "bernoulli":
        logits = random(3, 4, 6, seed=seed)
        own = reference.Independent(reference.Bernoulli(logits=logits), 1)
        return Bernoulli(logits), own, torch.randint(0, 2, (3, 4, 6))
    mean, log_std = random(3, 4, 2, seed=seed), random(2, seed=seed + 100)
    own = reference.Independent(reference.Normal(mean, log_std.exp()), 1)
    return DiagonalGaussian(mean, log_std), own, random(3, 4, 2, seed=7)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
def test_equals_torch(kind: str) -> None:
    (ours, theirs, action), (other, their_other, _) = pair(kind, 0), pair(kind, 1)
    expected = theirs.log_prob(action.double() if kind == "bernoulli" else action)
    torch.testing.assert_close(ours.log_prob(action), expected)
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.kl(other), reference.kl_divergence(theirs, their_other))
    assert ours.log_prob(action).shape == (3, 4)


def test_multi_discrete_is_independent_choices() -> None:
    logits = random(3, 4, 7)
    ours, parts = MultiDiscrete(logits, (2, 5)), [Categorical(logits[..., :2]), Categorical(logits[..., 2:])]
    other = MultiDiscrete(random(3, 4, 7, seed=1), (2, 5))
    action = torch.stack([torch.randint(0, 2, (3, 4)), torch.randint(0, 5, (3, 4))], -1)
    torch.testing.assert_close(ours.log_prob(action), sum(p.log_prob(action[..., i]) for i, p in enumerate(parts)))
    torch.testing.assert_close(ours.entropy(), sum(part.entropy() for part in parts))
    torch.testing.assert_close(
        ours.kl(other),
        parts[0].kl(Categorical(other.logits[..., :2])) + parts[1].kl(Categorical(other.logits[..., 2:])),
    )
    assert (ours.mode() == torch.stack([part.mode() for part in parts], -1)).all()


def test_samples_have_the_right_frequencies() -> None:
    rng, rows = np.random.default_rng(0), 40_000
    probability = torch.tensor([0.1, 0.0, 0.6, 0.3])
    drawn = Categorical(probability.log().expand(rows, 4)).sample(rng)
    frequency = torch.bincount(drawn, minlength=4) / rows
    torch.testing.assert_close(frequency, probability, atol=0.01, rtol=0)
    assert frequency[1] == 0
    bits = Bernoulli(torch.tensor([0.2, 0.9]).logit().expand(rows, 2)).sample(rng)
    torch.testing.assert_close(bits.double().mean(0), torch.tensor([0.2, 0.9]).double(), atol=0.01, rtol=0)
    normal = DiagonalGaussian(torch.tensor([1.0, -2.0]).expand(rows, 2), torch.tensor([0.0, -1.0])).sample(rng)
    torch.testing.assert_close(normal.mean(0), torch.tensor([1.0, -2.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(normal.std(0), torch.tensor([1.0, np.exp(-1)]).float(), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "gaussian"])
def test_a_seed_gives_the_same_actions(kind: str) -> None:
    ours, _, _ = pair(kind, 0)
    first, again, other = (ours.sample(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert first.shape == ours.mode().shape


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[0.0, -torch.inf], [1e4, -1e4]], requires_grad=True)
    ours = Categorical(logits)
    assert ours.entropy().isfinite().all()
    assert (ours.entropy() == 0).all()
    assert ours.kl(Categorical(logits.detach())).isfinite().all()
    assert Bernoulli(torch.tensor([[500.0]])).entropy().isfinite().all()


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (gym.spaces.Discrete(4, start=5), 4),
        (gym.spaces.MultiDiscrete([2, 3], start=[1, -1]), 5),
        (gym.spaces.MultiBinary(3), 3),
        (gym.spaces.Box(-1, 1, (2,), np.float32), 2),
    ],
)
def test_actions_of_a_space_are_inside_it(space: gym.Space, size: int) -> None:
    found, make = distribution_for(space)
    assert found == size
    output = torch.zeros(64, size)
    dist = make(output, torch.full((size,), -5.0)) if isinstance(space, gym.spaces.Box) else make(output)
    for action in (dist.sample(np.random.default_rng(0)), dist.mode()):
        assert all(space.contains(each.astype(space.dtype)) for each in action.numpy())
        assert dist.log_prob(action).shape == (64,)
    assert set(dist.parameters()) <= {"logits", "mean", "log_std"}


def test_a_row_that_was_never_acted_on_has_a_log_prob() -> None:
    _, make = distribution_for(gym.spaces.Discrete(3, start=5))
    assert make(torch.zeros(1, 3)).log_prob(torch.zeros(1, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize(
    "space", [gym.spaces.Box(0, 255, (3,), np.uint8), gym.spaces.Box(-1, 1, (2, 2)), gym.spaces.Dict({})]
)
def test_a_space_without_distribution_is_refused_by_name(space: gym.Space) -> None:
    with pytest.raises(ValueError, match="has no distribution"):
        distribution_for(space)


@pytest.mark.parametrize("first", ["mode", "entropy", "sample"])
@pytest.mark.parametrize("kind", ["categorical", "multi-discrete"])
def test_whoever_asks_without_gradient_first_does_not_take_it_from_the_next(kind: str, first: str) -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    ours = Categorical(logits) if kind == "categorical" else MultiDiscrete(logits, (2, 3))
    with torch.no_grad():
        action = ours.sample(np.random.default_rng(0)) if first == "sample" else ours.mode()
        if first == "entropy":
            ours.entropy()
    (ours.log_prob(action).sum() + ours.entropy().sum()).backward()
    expected = torch.autograd.functional.jacobian(lambda own: fresh_sum(own, action, kind), logits.detach())
    torch.testing.assert_close(logits.grad, expected)


def fresh_sum(logits: torch.Tensor, action: torch.Tensor, kind: str) -> torch.Tensor:
    dist = Categorical(logits) if kind == "categorical" else MultiDiscrete(logits, (2, 3))
    return dist.log_prob(action).sum() + dist.entropy().sum()


LOW, HIGH = torch.tensor([-1.0, 0.0]).double(), torch.tensor([1.0, 50.0]).double()


def squashed(seed: int, scale: float = 1.0) -> tuple[SquashedGaussian, reference.Distribution]:
    """Ours and torch's, which squashes by a chain of transforms."""
    mean, log_std = scale * random(3, 4, 2, seed=seed), 0.3 * random(2, seed=seed + 100)
    base = reference.Independent(reference.Normal(mean, log_std.exp()), 1)
    steps = [reference.TanhTransform(), reference.AffineTransform((LOW + HIGH) / 2, (HIGH - LOW) / 2)]
    return SquashedGaussian(mean, log_std, LOW, HIGH), reference.TransformedDistribution(base, steps)


def test_a_squashed_gaussian_equals_torchs() -> None:
    ours, theirs = squashed(0)
    action = ours.sample(np.random.default_rng(0))
    assert ((action > LOW) & (action < HIGH)).all()
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.kl(squashed(1)[0]), ours.base.kl(squashed(1)[0].base))
    torch.testing.assert_close(ours.mode(), LOW + (HIGH - LOW) * (ours.mean.tanh() + 1) / 2)


def test_a_squashed_density_integrates_to_one() -> None:
    ours = SquashedGaussian(torch.tensor([0.7]).double(), torch.tensor([-0.2]).double(), LOW[1:], HIGH[1:])
    grid = torch.linspace(0, 50, 200_001, dtype=torch.float64)[1:-1].unsqueeze(-1)
    wide = SquashedGaussian(ours.mean.expand_as(grid), ours.log_std, LOW[1:], HIGH[1:])
    assert float(wide.log_prob(grid).exp().sum() * 50 / 200_000) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("std", "error"), [(0.3, 1e-5), (1.0, 1e-4), (2.0, 0.01)])
def test_a_squashed_entropy_is_that_of_its_density(std: float, error: float) -> None:
    """Against a fine sum over u of log p."""
    u = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    for mean in (-3.0, 0.0, 0.5, 2.0):
        ours = SquashedGaussian(torch.tensor([mean]).double(), torch.tensor([std]).double().log(), LOW[:1], HIGH[:1])
        weight = torch.exp(-0.5 * u.square())
        slope = (weight * log_slope(mean + std * u)).sum() / weight.sum()
        expected = ours.base.entropy() + slope
        torch.testing.assert_close(ours.entropy(), expected, rtol=0, atol=error)


def test_a_squashed_entropy_has_a_gradient_that_pulls_from_the_bounds() -> None:
    mean = torch.tensor([[2.0, -2.0]], requires_grad=True)
    with torch.inference_mode():
        SquashedGaussian(mean.detach(), torch.zeros(2), LOW.float(), HIGH.float()).entropy()
    SquashedGaussian(mean, torch.zeros(2), LOW.float(), HIGH.float()).entropy().sum().backward()
    assert mean.grad[0, 0] < 0 < mean.grad[0, 1]


@pytest.mark.parametrize("mean", [0.0, 4.0, 9.0, 40.0, -1e6])
def test_a_squashed_action_keeps_its_density_when_it_was_stored(mean: float) -> None:
    """In float32, however near to a bound; and gradients stay finite there."""
    low, high = LOW.float(), HIGH.float()
    parameter = torch.full((64, 2), mean, requires_grad=True)
    ours = SquashedGaussian(parameter, torch.zeros(2), low, high)
    action = ours.sample(np.random.default_rng(0))
    stored = torch.from_numpy(action.numpy().copy())
    assert ((stored >= low) & (stored <= high)).all()
    assert torch.equal(ours.log_prob(stored), ours.log_prob(action))
    log_prob = ours.log_prob(torch.cat([stored[:-1], high.unsqueeze(0)]))
    assert log_prob.isfinite().all()
    log_prob.sum().backward()
    assert parameter.grad.isfinite().all()
    if abs(mean) <= 4:
        exact = DiagonalGaussian(parameter, torch.zeros(2)).sample(np.random.default_rng(0))
        slope = (log_slope(exact) + ((high - low) / 2).log()).sum(-1)
        torch.testing.assert_close(ours.log_prob(action), ours.base.log_prob(exact) - slope, rtol=0, atol=2e-2)


def test_only_bounded_boxes_can_be_squashed() -> None:
    size, make = distribution_for(gym.spaces.Box(-1, 2, (3,)), squashed=True)
    assert (size, make) == (3, SquashedGaussian)
    with pytest.raises(MethodError, match="no bounds to be squashed into"):
        distribution_for(gym.spaces.Discrete(3), squashed=True)
    with pytest.raises(MethodError, match="no bounds to be squashed into"):
        distribution_for(gym.spaces.Box(-1, np.inf, (3,)), squashed=True)
    with pytest.raises(MethodError, match="no bounds to be squashed into"):
        distribution_for(gym.spaces.Box(np.float32([0, 1]), np.float32([1, 1])), squashed=True)
