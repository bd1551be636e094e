"""InfoNCE against a loop, its bound against known information, margins and metrics against constructed cases."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, softplus

from learners.contrast import (
    Scorer,
    bilinear,
    cosine,
    distance,
    effective_rank,
    embedding_std,
    info_nce,
    pairwise_margin,
    shuffled,
    similarities,
    triplet_margin,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal_info_nce(logits: torch.Tensor, positive: list[int], valid: list[bool]) -> list[float]:
    losses = []
    for row, own in enumerate(positive):
        total = sum(math.exp(logits[row, column]) for column in range(logits.shape[1]) if valid[column])
        losses.append(-math.log(math.exp(logits[row, own]) / total) if valid[own] else 0.0)
    return losses


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_definition(masked: bool) -> None:
    logits, positive = random(5, 7), [3, 0, 6, 1, 1]
    valid = [True, False, True, True, True, False, True] if masked else [True] * 7
    loss, correct = info_nce(logits, torch.tensor(positive), valid=torch.tensor(valid) if masked else None)
    torch.testing.assert_close(loss.tolist(), literal_info_nce(logits, positive, valid), rtol=1e-6, atol=1e-6)
    best = logits.masked_fill(~torch.tensor(valid), -math.inf).argmax(1).tolist()
    assert correct.tolist() == [float(b == own and valid[own]) for b, own in zip(best, positive, strict=True)]


def test_hand_computed() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    loss, correct = info_nce(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(loss, torch.tensor([math.log(4 / 3), math.log(2)]))
    assert correct.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("valid", [[False, False, False], [True, False, True]])
def test_an_invalid_column_moves_nothing(valid: list[bool]) -> None:
    logits = random(3, 3).requires_grad_()
    loss, _ = info_nce(logits, torch.arange(3), valid=torch.tensor(valid))
    loss.sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad[:, ~torch.tensor(valid)] == 0).all()
    assert (logits.grad[~torch.tensor(valid)] == 0).all()


def test_scores() -> None:
    query, key, weight = random(3, 4), random(5, 6, seed=1), random(4, 6, seed=2)
    expected = [[float(q @ weight @ k) for k in key] for q in query]
    torch.testing.assert_close(bilinear(query, key, weight).tolist(), expected)
    key = key[:, :4]
    expected = [[float(cosine_similarity(q, k, 0) / 0.1) for k in key] for q in query]
    torch.testing.assert_close(cosine(query, key, 0.1).tolist(), expected)
    expected = [[-float((q - k).square().sum() / 0.5) for k in key] for q in query]
    torch.testing.assert_close(distance(query, key, 0.5).tolist(), expected)


def test_a_scorer_is_the_function_of_its_name() -> None:
    query, key, weight = random(3, 4), random(5, 4, seed=1), random(4, 4, seed=2)
    assert torch.equal(Scorer("cosine", 0.1)(query, key), cosine(query, key, 0.1))
    assert torch.equal(Scorer("distance", 0.3)(query, key), distance(query, key, 0.3))
    torch.testing.assert_close(Scorer("bilinear", 2.0)(query, key, weight), bilinear(query, key, weight) / 2)
    torch.testing.assert_close(Scorer()(query, key), bilinear(query, key, torch.eye(4, dtype=torch.float64)))


@pytest.mark.parametrize("kind", ["bilinear", "cosine", "distance"])
def test_a_query_that_is_its_key_has_finite_gradients(kind: str) -> None:
    same = torch.zeros(4, 3, requires_grad=True)
    info_nce(Scorer(kind)(same, same), torch.arange(4))[0].sum().backward()
    assert same.grad.isfinite().all()


def test_the_best_of_two_is_pairwise_logistic() -> None:
    """InfoNCE with one negative is a preference model's loss (Bradley-Terry): softplus of the scores' difference."""
    scores = random(6, 2)
    first, _ = info_nce(scores, torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(first, softplus(scores[:, 1] - scores[:, 0]))


@given(st.integers(2, 40), st.floats(0.01, 1e3), st.integers(0, 1000))
def test_the_bound_is_never_above_the_logarithm_of_the_valid_keys(n: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, n, generator=generator)
    valid = torch.rand(n, generator=generator) < 0.8
    loss, correct = info_nce(logits, torch.randperm(n, generator=generator), valid=valid)
    assert loss.isfinite().all()
    assert (loss >= 0).all(), "log(valid keys) - loss is the bound"
    assert set(correct.tolist()) <= {0.0, 1.0}


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 1000))
def test_shuffled_pairs_are_a_permutation_among_the_counted(among: list[bool], seed: int) -> None:
    torch.manual_seed(seed)
    positive, counted = torch.arange(len(among)) + 5, torch.tensor(among)
    changed = shuffled(positive, counted)
    assert torch.equal(changed[~counted], positive[~counted])
    assert sorted(changed[counted].tolist()) == positive[counted].tolist()


def test_shuffled_pairs_are_drawn_anew() -> None:
    positive, counted = torch.arange(50), torch.ones(50, dtype=torch.bool)
    assert not torch.equal(shuffled(positive, counted), shuffled(positive, counted))


def test_margins_by_hand() -> None:
    anchor, near, far = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.3, 0.4]]), torch.tensor([[0.6, 0.8]])
    # Squared distances .25 and 1.
    assert triplet_margin(anchor, near, far, 1.0).item() == pytest.approx(0.25)
    assert triplet_margin(anchor, near, far, 0.5).item() == 0
    yes, no = torch.tensor([True]), torch.tensor([False])
    assert pairwise_margin(anchor, near, yes, 2.0).item() == pytest.approx(0.125)
    assert pairwise_margin(anchor, near, no, 2.0).item() == pytest.approx(0.5 * 1.5**2)
    assert pairwise_margin(anchor, far, no, 0.9).item() == 0


def test_margins_of_a_collapsed_representation() -> None:
    point = torch.ones(4, 3, requires_grad=True)
    triplet = triplet_margin(point, point, point, 0.2)
    assert triplet.tolist() == pytest.approx([0.2] * 4)
    pairwise = pairwise_margin(point, point, torch.tensor([True, False, True, False]), 1.0)
    (triplet.sum() + pairwise.sum()).backward()
    assert point.grad.isfinite().all()


def test_similarities_equal_the_matrix() -> None:
    query, key, valid = random(5, 3), random(5, 3, seed=1), torch.tensor([True, True, False, True, True])
    positive, negative = similarities(query, key, valid=valid)
    matrix = cosine(query, key, 1.0)
    for row in valid.nonzero().flatten().tolist():
        others = [matrix[row, column] for column in range(5) if column != row and valid[column]]
        assert positive[row] == pytest.approx(float(matrix[row, row]))
        assert negative[row] == pytest.approx(float(sum(others) / len(others)))


def test_health_of_known_representations() -> None:
    valid = torch.ones(4000, dtype=torch.bool)
    isotropic = random(4000, 6)
    assert effective_rank(isotropic, valid=valid) == pytest.approx(6, abs=0.1)
    assert embedding_std(isotropic, valid=valid) == pytest.approx(1, abs=0.05)
    line = random(4000, 1) * random(1, 6, seed=1) + 5
    assert effective_rank(line, valid=valid) == pytest.approx(1, abs=1e-6)
    point = torch.full((4000, 6), 3.0)
    assert effective_rank(point, valid=valid) == 0
    assert embedding_std(point, valid=valid) == 0
    polluted = torch.where((torch.arange(4000) % 2 == 0)[:, None], line, isotropic * 1e6)
    assert effective_rank(polluted, valid=torch.arange(4000) % 2 == 0) == pytest.approx(1, abs=1e-6)


def train_critic(rho: float, *, shuffled: bool) -> tuple[float, float, int]:
    """The bound that a quadratic critic reaches on correlated Gaussians: mean and largest of 100 fresh batches."""
    generator, n = torch.Generator().manual_seed(0), 256
    weight = torch.zeros(3, 3, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=0.02)

    def bound() -> torch.Tensor:
        x, noise = torch.randn(2, n, 1, generator=generator)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        y = y[torch.randperm(n, generator=generator)] if shuffled else y
        query, key = (torch.cat([torch.ones(n, 1), each, each.square()], 1) for each in (x, y))
        return math.log(n) - info_nce(bilinear(query, key, weight), torch.arange(n))[0].mean()

    for _ in range(600):
        optimiser.zero_grad()
        (-bound()).backward()
        optimiser.step()
    with torch.no_grad():
        bounds = [float(bound()) for _ in range(100)]
    return sum(bounds) / len(bounds), max(bounds), n


def test_information_of_correlated_gaussians() -> None:
    mean, largest, n = train_critic(0.9, shuffled=False)
    assert mean == pytest.approx(-0.5 * math.log(1 - 0.9**2), rel=0.1)
    assert largest <= math.log(n)


def test_no_information_in_shuffled_pairs() -> None:
    mean, _, _ = train_critic(0.9, shuffled=True)
    assert mean <= 0.02


def test_the_bound_saturates_at_the_logarithm_of_the_number_of_keys() -> None:
    loss, correct = info_nce(1e3 * torch.eye(8), torch.arange(8))
    assert (math.log(8) - loss).max() <= math.log(8)
    assert correct.all()
