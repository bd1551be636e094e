"""Products with the Fisher matrix against the matrix itself, and the solver against a direct one."""

from itertools import product as combinations

import gymnasium as gym
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learners.distributions import Categorical
from learners.model import Model
from learners.natural_gradient import conjugate_gradient, fisher_product, flat, twice_differentiable
from tests.learners.acting import SPACES, acted_batch, policy_of, policy_parameters


@given(seed=st.integers(0, 1000), size=st.integers(1, 20))
def test_conjugate_gradient_solves_what_a_direct_solver_solves(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(size)
    target = torch.randn(size, generator=generator, dtype=torch.float64)
    solution, rest = conjugate_gradient(lambda vector: matrix @ vector, target, iterations=3 * size)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target), rtol=0, atol=1e-6)
    torch.testing.assert_close(rest, target - matrix @ solution, rtol=0, atol=1e-9)


def test_conjugate_gradient_tells_what_is_left_when_it_is_stopped() -> None:
    matrix, target = torch.diag(torch.tensor([1.0, 2.0, 5.0])), torch.ones(3)
    solution, rest = conjugate_gradient(lambda vector: matrix @ vector, target, iterations=1)
    torch.testing.assert_close(rest, target - matrix @ solution)
    assert rest.norm() > 0.1
    zero, _ = conjugate_gradient(lambda vector: matrix @ vector, 0 * target, iterations=5)
    assert torch.equal(zero, torch.zeros(3))


def actions_of(space: gym.Space) -> Tensor:
    """All actions of a finite space, one per row."""
    match space:
        case gym.spaces.Discrete():
            return torch.arange(int(space.n))
        case gym.spaces.MultiDiscrete():
            return torch.tensor(list(combinations(*(range(int(n)) for n in space.nvec))))
        case gym.spaces.MultiBinary():
            return torch.tensor(list(combinations((0, 1), repeat=int(space.n))))
    raise AssertionError(space)


def scores(value: Tensor, parameters: list[Tensor]) -> Tensor:
    """The gradient of each number of `value`, (n, parameters)."""
    rows = [torch.autograd.grad(v, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for v in value.flatten()]  # fmt: skip
    return torch.stack([flat(row) for row in rows]).double()


def explicit_fisher(model: Model, kind: str, batch: dict, weight: Tensor) -> Tensor:
    """The definition: the expected outer product of scores over *all* actions, row by row."""
    parameters, dist = list(policy_parameters(model).values()), model(batch).dist
    if kind == "gaussian":  # known: 1 / std^2 for the mean, 2 for the logarithm of the standard deviation
        mean, log_std = (scores(dist.parameters()[name], parameters) for name in ("mean", "log_std"))
        spread = (-2 * dist.parameters()["log_std"]).exp().flatten().double().detach()
        rows = weight.unsqueeze(-1).expand_as(dist.mean).flatten().double()
        return (mean.T * (rows * spread)) @ mean + (log_std.T * (2 * rows)) @ log_std
    total = torch.zeros(1)
    for action in actions_of(SPACES[kind]):
        log_prob = dist.log_prob(action.expand(*weight.shape, *action.shape))
        score = scores(log_prob, parameters)
        total = total + (score.T * (log_prob.exp() * weight).flatten().double().detach()) @ score
    return total


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", list(SPACES))
def test_products_are_those_of_the_explicit_matrix(kind: str, recurrent: bool) -> None:
    model = policy_of(kind, recurrent=recurrent)
    batch = acted_batch(model, 2, 4)
    weight = batch["mask"] / batch["mask"].sum()
    parameters = list(policy_parameters(model).values())
    matrix = explicit_fisher(model, kind, batch, weight)
    with twice_differentiable(recurrent=recurrent):
        product = fisher_product(model(batch).dist, weight, parameters)
    for seed in range(3):
        vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(product(vector).double(), matrix @ vector.double(), rtol=1e-5, atol=1e-5)


def test_two_parameters_by_hand() -> None:
    """For logits (a, b) the matrix is diag(p) - p p^T."""
    theta = torch.tensor([0.3, -0.4], requires_grad=True)
    product = fisher_product(Categorical(theta.view(1, 1, 2) * 1.0), torch.ones(1, 1), [theta])
    p = theta.detach().softmax(0)
    expected = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(torch.stack([product(unit) for unit in torch.eye(2)]), expected, rtol=0, atol=1e-6)
