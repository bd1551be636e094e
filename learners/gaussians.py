"""Gaussians over continuous actions: free, or squashed into the bounds of a Box."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
EDGE = 1 - 1e-6
"""Squashed actions keep this far inside their bounds of -1 and 1: beyond, float32 cannot tell them apart."""
NODES = 16
"""Points of the quadrature in a squashed Gaussian's entropy."""


def to_tensor(array: Any, like: Tensor) -> Tensor:
    """An array in another tensor's dtype, on its device."""
    return torch.as_tensor(array, dtype=like.dtype, device=like.device)


@dataclass(frozen=True)
class DiagonalGaussian:
    """A normal distribution with independent coordinates, not squashed: bounds are the environment's affair.

    Attributes:
        mean: its centre, and its mode.
        log_std: logarithm of each coordinate's standard deviation; (action,) if it does not depend on the row.
    """

    mean: Float[Tensor, "*rows action"]
    log_std: Float[Tensor, "*#rows action"]

    def log_prob(self, action: Float[Tensor, "*rows action"]) -> Float[Tensor, "*rows"]:
        """Log-density of each row's action."""
        z = (action - self.mean) * (-self.log_std).exp()
        return -(0.5 * z.square() + self.log_std + HALF_LOG_TWO_PI).sum(-1)

    def entropy(self) -> Float[Tensor, "*rows"]:
        """Differential entropy in nats; may be negative."""
        return (self.log_std.expand_as(self.mean) + HALF_LOG_TWO_PI + 0.5).sum(-1)

    def kl(self, other: "DiagonalGaussian") -> Float[Tensor, "*rows"]:
        """KL(self || other) in nats."""
        ratio = (2 * (self.log_std - other.log_std)).exp()
        shift = (self.mean - other.mean).square() * (-2 * other.log_std).exp()
        return (other.log_std - self.log_std + 0.5 * (ratio + shift - 1)).sum(-1)

    def mode(self) -> Float[Tensor, "*rows action"]:
        """The mean."""
        return self.mean

    def sample(self, rng: np.random.Generator) -> Float[Tensor, "*rows action"]:
        """One action per row."""
        noise = to_tensor(rng.standard_normal(self.mean.shape), self.mean)
        return (self.mean + self.log_std.exp() * noise).detach()

    def parameters(self) -> dict[str, Tensor]:
        """Mean and log standard deviation, both of one row's shape."""
        return {"mean": self.mean, "log_std": self.log_std.expand_as(self.mean)}


@dataclass(frozen=True)
class SquashedGaussian:
    """A `DiagonalGaussian` of u, squashed into bounds: action = low + (high - low) (tanh(u) + 1) / 2.

    `log_prob` is computed of the u that belongs to the action as it was recorded. So an action that was drawn, stored
    and read back has the same density wherever it is computed.

    Attributes:
        mean: of u.
        log_std: logarithm of u's standard deviation; (action,) if it does not depend on the row.
        low: least action of each coordinate.
        high: greatest one.
    """

    mean: Float[Tensor, "*rows action"]
    log_std: Float[Tensor, "*#rows action"]
    low: Float[Tensor, " action"]
    high: Float[Tensor, " action"]

    @property
    def base(self) -> DiagonalGaussian:
        """The distribution of u."""
        return DiagonalGaussian(self.mean, self.log_std)

    def log_prob(self, action: Float[Tensor, "*rows action"]) -> Float[Tensor, "*rows"]:
        """Log-density of each row's action; one outside the bounds counts as lying just inside them."""
        # In float64, since 1 - |action| is what counts near a bound; nothing of this is differentiated.
        low, high = self.low.double(), self.high.double()
        inside = ((2 * action.double() - low - high) / (high - low)).clamp(-EDGE, EDGE)
        u = torch.atanh(inside).to(self.mean.dtype)
        return self.base.log_prob(u) - (log_slope(u) + self._log_half_width()).sum(-1)

    def entropy(self) -> Float[Tensor, "*rows"]:
        """Differential entropy in nats, of which there is no closed form.

        It is the entropy of u, exact, plus the expected logarithm of the squashing's slope, by Gauss-Hermite
        quadrature: nothing random, differentiable, within 0.01 nats a coordinate for standard deviations up to 2.
        """
        nodes, weights = quadrature(self.mean.dtype, self.mean.device)
        u = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes
        return self.base.entropy() + (log_slope(u) @ weights + self._log_half_width()).sum(-1)

    def kl(self, other: "SquashedGaussian") -> Float[Tensor, "*rows"]:
        """KL(self || other) in nats: that of the two Gaussians of u, since both are squashed by the same function."""
        return self.base.kl(other.base)

    def mode(self) -> Float[Tensor, "*rows action"]:
        """The mean of u, squashed: the median of each coordinate, and not quite where the density is highest."""
        return self._squashed(self.mean)

    def sample(self, rng: np.random.Generator) -> Float[Tensor, "*rows action"]:
        """One action per row."""
        return self._squashed(self.base.sample(rng))

    def parameters(self) -> dict[str, Tensor]:
        """Mean and log standard deviation of u, both of one row's shape."""
        return self.base.parameters()

    def _squashed(self, u: Tensor) -> Tensor:
        return self.low + (self.high - self.low) * ((torch.tanh(u).clamp(-EDGE, EDGE) + 1) / 2)

    def _log_half_width(self) -> Tensor:
        return ((self.high - self.low) / 2).log()


def log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), by a form that stays exact where tanh rounds to 1."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


@lru_cache
def quadrature(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Points and weights (NODES,) by which the expectation over a standard normal variable is a weighted sum."""
    points, weights = np.polynomial.hermite_e.hermegauss(NODES)
    with torch.inference_mode(False):  # kept for whoever asks next, who may want gradients
        both = torch.tensor(np.stack([points, weights / weights.sum()]), dtype=dtype, device=device)
    return both[0], both[1]
