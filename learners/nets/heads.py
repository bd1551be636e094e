"""Heads, from features to a distribution over actions and to a value; and how layers are initialised."""

import math
from typing import TypeVar

import gymnasium as gym
import torch
from jaxtyping import Float
from torch import Tensor, nn

from learners.distributions import Distribution, distribution_for
from learners.masks import masked

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

    low: Tensor
    high: Tensor

    def __init__(
        self,
        features: int,
        space: gym.Space,
        *,
        log_std: float = 0.0,
        squashed: bool = False,
        choices: tuple[int, ...] = (),
    ) -> None:
        """Makes the layer.

        Args:
            features: width of its input.
            space: of the actions, see `distribution_for`.
            log_std: where a Box's log standard deviation starts.
            squashed: whether a Box's Gaussian is squashed into its bounds.
            choices: (masked actions) how many actions each choice has, see `learners.masks.choices_of`.

        Raises:
            MethodError: the space has no distribution; names it.
        """
        super().__init__()
        size, self._make = distribution_for(space, squashed=squashed)
        self.choices = choices
        self.linear = orthogonal(nn.Linear(features, size), gain=0.01)
        box = isinstance(space, gym.spaces.Box)
        self.log_std = nn.Parameter(torch.full((size,), log_std)) if box else None
        self._bounds: tuple[str, ...] = ("low", "high") if box and squashed else ()
        for name in self._bounds:  # part of the space, not of what is learned
            self.register_buffer(name, torch.as_tensor(getattr(space, name), dtype=torch.float32), persistent=False)

    def forward(self, features: Float[Tensor, "*rows F"], mask: Tensor | None = None) -> Distribution:
        """One distribution per row.

        Args:
            features: of each row.
            mask: not 0 where an action is allowed, (*rows, total); None: all are.
        """
        return self.distribution(self.linear(features), mask)

    def distribution(self, output: Float[Tensor, "*rows numbers"], mask: Tensor | None = None) -> Distribution:
        """The distributions of the layer's output."""
        if mask is not None:
            output = masked(output, mask, self.choices)
        if self.log_std is None:
            return self._make(output)
        return self._make(output, self.log_std, **{name: getattr(self, name) for name in self._bounds})


class ValueHead(nn.Module):
    """A linear layer with one output: the expected return."""

    def __init__(self, features: int) -> None:
        """Makes the layer for inputs of width `features`."""
        super().__init__()
        self.linear = orthogonal(nn.Linear(features, 1), gain=1.0)

    def forward(self, features: Float[Tensor, "*rows F"]) -> Float[Tensor, "*rows"]:
        """One value per row."""
        return self.linear(features).squeeze(-1)
