"""What a natural gradient is computed with: products with a policy's Fisher matrix, a solver that needs only those."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from learners.distributions import Distribution

Product = Callable[[Tensor], Tensor]
"""A matrix, as what it does to a vector."""


def conjugate_gradient(
    product: Product, target: Float[Tensor, " n"], *, iterations: int, tolerance: float = 1e-10
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Solve A x = target for a symmetric positive definite A.

    Args:
        product: with A.
        target: the right-hand side.
        iterations: products at most.
        tolerance: length of the rest, as a share of the target's, at which to stop.

    Returns:
        x, and the rest, target - A x.
    """
    solution, rest, search = torch.zeros_like(target), target.clone(), target.clone()
    squared = enough = rest @ rest
    for _ in range(iterations):
        if squared <= tolerance**2 * enough:
            break
        image = product(search)
        length = squared / (search @ image)
        solution += length * search
        rest -= length * image
        shrunk = rest @ rest
        search = rest + (shrunk / squared) * search
        squared = shrunk
    return solution, rest


def fisher_product(dist: Distribution, weight: Tensor, parameters: Sequence[Tensor]) -> Product:
    """Products with the Fisher matrix of a policy, exact: the expectation over all actions, not over the sampled ones.

    With z(theta) the distribution's parameters and M the Hessian of KL(dist || z) at dist, the matrix is J^T M J, with
    J = dz / dtheta: the Hessian of the mean KL at the policy itself, and positive semi-definite anywhere else, too. The
    graph of dist is kept for as long as the function is.

    Args:
        dist: the policy's, with gradient, made with kernels that can be differentiated twice.
        weight: of each row, its share of the mean over the rows of all ranks.
        parameters: theta.
    """
    outputs = {name: value for name, value in dist.parameters().items() if value.requires_grad}
    tensors = list(outputs.values())
    ones = [torch.zeros_like(value, requires_grad=True) for value in tensors]
    # J^T w is linear in w, so its derivative in the direction of a vector is J times that vector, whatever w. Of sums
    # only: for derivatives in a direction torch loads a second's worth of symbolic mathematics the first time.
    pulled = flat(torch.autograd.grad(
        _along(tensors, ones), parameters, create_graph=True, allow_unused=True, materialize_grads=True
    ))  # fmt: skip
    points = [value.detach().requires_grad_() for value in tensors]
    near = cast(Distribution, replace(cast(Any, dist), **dict(zip(outputs, points, strict=True))))
    centre = cast(Distribution, replace(cast(Any, dist), **{n: v.detach() for n, v in dist.parameters().items()}))
    slope = torch.autograd.grad((centre.kl(near) * weight).sum(), points, create_graph=True)

    def product(vector: Tensor) -> Tensor:
        tangent = torch.autograd.grad(pulled @ vector, ones, retain_graph=True)
        bent = torch.autograd.grad(_along(slope, tangent), points, retain_graph=True)
        return flat(torch.autograd.grad(
            _along(tensors, bent), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        ))  # fmt: skip

    return product


def _along(tensors: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    """The sum of products, whose derivative is that of the tensors in the direction."""
    return torch.stack([(tensor * part).sum() for tensor, part in zip(tensors, direction, strict=True)]).sum()


def flat(tensors: Sequence[Tensor]) -> Float[Tensor, " n"]:
    """All of them side by side."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@contextlib.contextmanager
def twice_differentiable(*, recurrent: bool) -> Iterator[None]:
    """Keep to what has a backward pass of its backward pass: no cuDNN recurrence, fused attention or compiled encoder.

    Args:
        recurrent: whether there is a core; convolutions may stay with cuDNN.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if recurrent:
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
