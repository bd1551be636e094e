"""Distributions over actions, as values that hold tensors with any leading dimensions.

`torch.distributions` is not used: its argument checks cost more than a small policy, and it samples from torch's global
generator, while an actor's randomness must come from its own numpy one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import logsigmoid

from learners.gaussians import DiagonalGaussian, SquashedGaussian, to_tensor
from learners.objective import MethodError


@runtime_checkable
class Distribution(Protocol):
    """What a policy head returns: one distribution per row."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability (or density) of each row's action."""
        ...

    def entropy(self) -> Tensor:
        """Entropy of each row's distribution, in nats."""
        ...

    def kl(self, other: Any) -> Tensor:
        """KL(self || other) of each row, in nats, exact."""
        ...

    def mode(self) -> Tensor:
        """The likeliest action of each row."""
        ...

    def sample(self, rng: np.random.Generator) -> Tensor:
        """One action per row, from numpy's randomness."""
        ...

    def parameters(self) -> dict[str, Tensor]:
        """The tensors that say everything about it, for recording as columns."""
        ...


@dataclass(frozen=True)
class Categorical:
    """One choice out of `actions`, numbered from `start`.

    Attributes:
        logits: unnormalised log-probabilities.
        start: number of the first action (gymnasium's `Discrete.start`).
    """

    logits: Float[Tensor, "*rows actions"]
    start: int = 0

    @cached_property
    def log_probs(self) -> Float[Tensor, "*rows actions"]:
        """Normalised log-probabilities."""
        with torch.enable_grad():  # kept for whoever asks next, who may want gradients
            return self.logits.log_softmax(-1)

    def log_prob(self, action: Integer[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Log-probability of each row's action."""
        # Rows that were never acted on hold a 0, which a space that starts elsewhere does not have.
        index = (action.long() - self.start).clamp(0, self.logits.shape[-1] - 1)
        return self.log_probs.gather(-1, index.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Float[Tensor, "*rows"]:
        """Entropy in nats; an action of probability 0 counts 0."""
        # The clamp keeps 0 * -inf from being NaN where logits mask actions out.
        return -(self.log_probs.exp() * self.log_probs.clamp(min=-1e4)).sum(-1)

    def kl(self, other: "Categorical") -> Float[Tensor, "*rows"]:
        """KL(self || other) in nats."""
        ratio = self.log_probs.clamp(min=-1e4) - other.log_probs.clamp(min=-1e4)
        return (self.log_probs.exp() * ratio).sum(-1)

    def mode(self) -> Integer[Tensor, "*rows"]:
        """The likeliest action, the first of equals."""
        return self.logits.argmax(-1) + self.start

    def sample(self, rng: np.random.Generator) -> Integer[Tensor, "*rows"]:
        """One action per row, by inverting the cumulative distribution."""
        # By numpy, whose calls take half as long as torch's on a handful of rows.
        cumulative = np.exp(self.log_probs.detach().cpu().numpy(), dtype=np.float64).cumsum(-1)
        uniform = rng.random(cumulative.shape[:-1]) * cumulative[..., -1]
        index = (cumulative <= uniform[..., None]).sum(-1)
        index = np.minimum(index, self.logits.shape[-1] - 1) + self.start
        return torch.as_tensor(index, device=self.logits.device)

    def parameters(self) -> dict[str, Tensor]:
        """Its logits."""
        return {"logits": self.logits}


@dataclass(frozen=True)
class MultiDiscrete:
    """Several independent choices; their logits lie side by side.

    Attributes:
        logits: unnormalised log-probabilities of all choices, concatenated.
        sizes: how many actions each choice has.
        starts: number of the first action of each choice; None: all start at 0.
    """

    logits: Float[Tensor, "*rows total"]
    sizes: tuple[int, ...]
    starts: tuple[int, ...] | None = None

    @cached_property
    def choices(self) -> tuple[Categorical, ...]:
        """One `Categorical` for each choice."""
        starts = self.starts or (0,) * len(self.sizes)
        with torch.enable_grad():  # as in `Categorical.log_probs`
            return tuple(map(Categorical, self.logits.split(self.sizes, -1), starts))

    def log_prob(self, action: Integer[Tensor, "*rows choices"]) -> Float[Tensor, "*rows"]:
        """Log-probability of all choices together."""
        parts = zip(self.choices, action.unbind(-1), strict=True)
        return torch.stack([choice.log_prob(part) for choice, part in parts]).sum(0)

    def entropy(self) -> Float[Tensor, "*rows"]:
        """Sum of the choices' entropies, in nats."""
        return torch.stack([choice.entropy() for choice in self.choices]).sum(0)

    def kl(self, other: "MultiDiscrete") -> Float[Tensor, "*rows"]:
        """KL(self || other) in nats."""
        parts = zip(self.choices, other.choices, strict=True)
        return torch.stack([mine.kl(theirs) for mine, theirs in parts]).sum(0)

    def mode(self) -> Integer[Tensor, "*rows choices"]:
        """The likeliest action of every choice."""
        return torch.stack([choice.mode() for choice in self.choices], -1)

    def sample(self, rng: np.random.Generator) -> Integer[Tensor, "*rows choices"]:
        """One action per row and choice."""
        return torch.stack([choice.sample(rng) for choice in self.choices], -1)

    def parameters(self) -> dict[str, Tensor]:
        """Its logits."""
        return {"logits": self.logits}


@dataclass(frozen=True)
class Bernoulli:
    """Independent switches, each 0 or 1.

    Attributes:
        logits: log-odds of a 1.
    """

    logits: Float[Tensor, "*rows bits"]

    def log_prob(self, action: Integer[Tensor, "*rows bits"]) -> Float[Tensor, "*rows"]:
        """Log-probability of all switches together."""
        return logsigmoid(torch.where(action > 0, self.logits, -self.logits)).sum(-1)

    def entropy(self) -> Float[Tensor, "*rows"]:
        """Sum of the switches' entropies, in nats."""
        on = self.logits.sigmoid()
        return -(on * logsigmoid(self.logits) + (1 - on) * logsigmoid(-self.logits)).sum(-1)

    def kl(self, other: "Bernoulli") -> Float[Tensor, "*rows"]:
        """KL(self || other) in nats."""
        on = self.logits.sigmoid()
        one = logsigmoid(self.logits) - logsigmoid(other.logits)
        zero = logsigmoid(-self.logits) - logsigmoid(-other.logits)
        return (on * one + (1 - on) * zero).sum(-1)

    def mode(self) -> Integer[Tensor, "*rows bits"]:
        """1 where a 1 is likelier."""
        return (self.logits > 0).to(torch.uint8)

    def sample(self, rng: np.random.Generator) -> Integer[Tensor, "*rows bits"]:
        """One setting of all switches per row."""
        on = self.logits.detach().double().sigmoid()
        return (to_tensor(rng.random(self.logits.shape), on) < on).to(torch.uint8)

    def parameters(self) -> dict[str, Tensor]:
        """Its logits."""
        return {"logits": self.logits}


def distribution_for(space: gym.Space, *, squashed: bool = False) -> tuple[int, Callable[..., Distribution]]:
    """How many numbers a policy head must give for an action space, and what makes a distribution of them.

    Args:
        space: Discrete, MultiDiscrete, MultiBinary, or a floating-point Box; vectors, not matrices.
        squashed: into the bounds of a Box.

    Returns:
        The size, and a function of the head's output; for a Box `DiagonalGaussian`, which takes a `log_std` as well, or
        `SquashedGaussian`, which also takes `low` and `high`.

    Raises:
        MethodError: another kind of space, or a Box without bounds to be squashed into; names it.
    """
    if squashed and not _bounded(space):
        raise MethodError(f"action space {space} has no bounds to be squashed into: use squashed=False")
    match space:
        case gym.spaces.Discrete():
            return int(space.n), partial(Categorical, start=int(space.start))
        case gym.spaces.MultiDiscrete() if space.nvec.ndim == 1:
            sizes, starts = tuple(map(int, space.nvec)), tuple(map(int, space.start))
            return sum(sizes), partial(MultiDiscrete, sizes=sizes, starts=starts)
        case gym.spaces.MultiBinary() if len(space.shape) == 1:
            return int(space.shape[0]), Bernoulli
        case gym.spaces.Box() if len(space.shape) == 1 and np.issubdtype(space.dtype, np.floating):
            return int(space.shape[0]), SquashedGaussian if squashed else DiagonalGaussian
    raise MethodError(
        f"action space {space} has no distribution: use Discrete, or a one-dimensional MultiDiscrete, MultiBinary or "
        "floating-point Box (gymnasium.wrappers.TransformAction can flatten a matrix)"
    )


def _bounded(space: gym.Space) -> bool:
    """Whether it is a Box with some room between two bounds in every direction."""
    return isinstance(space, gym.spaces.Box) and bool(
        (np.isfinite(space.high - space.low) & (space.high > space.low)).all()
    )
