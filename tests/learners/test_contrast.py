"""InfoNCE against a loop, its bound against known information, and the metrics against constructed representations."""

import math

import pytest
import torch
from torch.nn.functional import cosine_similarity

from learners.contrast import bilinear, cosine, effective_rank, embedding_std, info_nce, similarities


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
