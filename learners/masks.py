"""Action masks: an observation that says which actions are allowed now, and logits that follow it."""

from collections.abc import Mapping

import gymnasium as gym
import torch
from jaxtyping import Float
from torch import Tensor

from learners.distributions import distribution_for
from learners.objective import Batch, MethodError
from replay.schema import Column

ACTION_MASK = "observation.action_mask"
"""The column of an observation's part `action_mask`: not 0 where an action is allowed. Encoders do not see it."""
FORBIDDEN = -1e8
"""Logit of a forbidden action: finite, so that nothing becomes NaN, and of probability 0 in float32."""


def choices_of(observation: Mapping[str, Column], space: gym.Space) -> tuple[int, ...]:
    """How many actions each choice of a masked action space has; empty where the observation has no mask.

    Raises:
        MethodError: the space has no logits to mask, or the mask has another length than they.
    """
    if ACTION_MASK not in observation:
        return ()
    if not isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        raise MethodError(
            f"{ACTION_MASK}: only Discrete and MultiDiscrete actions can be masked, not {space}: give that part of the "
            "observation another name"
        )
    total, _ = distribution_for(space)
    if observation[ACTION_MASK].shape != (total,):
        raise MethodError(
            f"{ACTION_MASK} has shape {observation[ACTION_MASK].shape}, wanted ({total},): one number for each action "
            "of each choice, side by side"
        )
    return (int(space.n),) if isinstance(space, gym.spaces.Discrete) else tuple(map(int, space.nvec))


def masked(logits: Float[Tensor, "*rows total"], mask: Tensor, sizes: tuple[int, ...]) -> Float[Tensor, "*rows total"]:
    """Logits with those of forbidden actions at `FORBIDDEN`, without gradient.

    A choice that forbids everything is left as it is, as if it allowed all: final observations often forbid all, and
    nothing is decided there.

    Args:
        logits: of all choices, side by side.
        mask: not 0 where an action is allowed, of the same shape.
        sizes: actions of each choice.
    """
    allowed = [choice | ~choice.any(-1, keepdim=True) for choice in (mask != 0).split(sizes, -1)]
    return torch.where(torch.cat(allowed, -1), logits, FORBIDDEN)


def check_decisions(batch: Batch, sizes: tuple[int, ...]) -> None:
    """Refuse rows on which a decision was made although a choice had no allowed action.

    Args:
        batch: with columns (B, T, ...).
        sizes: actions of each choice.

    Raises:
        MethodError: there is such a row; names its episode and step.
    """
    possible = torch.stack([choice.any(-1) for choice in (batch[ACTION_MASK] != 0).split(sizes, -1)]).all(0)
    wrong = (~possible & (batch["mask"] > 0)).nonzero()
    if len(wrong):
        step, episode = (int(batch[name][tuple(wrong[0])]) for name in ("step", "episode"))
        raise MethodError(
            f"{ACTION_MASK} allows no action in step {step} of episode {episode}, where a decision was made: only an "
            "episode's final observation may forbid everything"
        )
