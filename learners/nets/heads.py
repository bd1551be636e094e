"""Heads, from features to a distribution over actions and to a value; and how layers are initialised."""

import math
from typing import TypeVar

import gymnasium as gym
import torch
from jaxtyping import Float
from torch import Tensor, nn

from learners.distributions import DiagonalGaussian, Distribution, distribution_for

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def orthogonal(layer: Layer, *, gain: float = math.sqrt(2)) -> Layer:
    """The same layer, with orthogonal weights of the given gain and zero bias."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class PolicyHead(nn.Module):
    """A linear layer and a distribution over the actions of a space.

    Its small gain makes the first policy nearly uniform. For a Box, the logarithm of the standard deviation is a free
    parameter that does not depend on the observation.
    """

    def __init__(self, features: int, space: gym.Space, *, log_std: float = 0.0) -> None:
        """Makes the layer.

        Args:
            features: width of its input.
            space: of the actions, see `distribution_for`.
            log_std: where a Box's log standard deviation starts.

        Raises:
            ValueError: the space has no distribution; names it.
        """
        super().__init__()
        size, self._make = distribution_for(space)
        self.linear = orthogonal(nn.Linear(features, size), gain=0.01)
        self.log_std = nn.Parameter(torch.full((size,), log_std)) if self._make is DiagonalGaussian else None

    def forward(self, features: Float[Tensor, "*rows F"]) -> Distribution:
        """One distribution per row."""
        output = self.linear(features)
        return self._make(output) if self.log_std is None else self._make(output, self.log_std)


class ValueHead(nn.Module):
    """A linear layer with one output: the expected return."""

    def __init__(self, features: int) -> None:
        """Makes the layer for inputs of width `features`."""
        super().__init__()
        self.linear = orthogonal(nn.Linear(features, 1), gain=1.0)

    def forward(self, features: Float[Tensor, "*rows F"]) -> Float[Tensor, "*rows"]:
        """One value per row."""
        return self.linear(features).squeeze(-1)
