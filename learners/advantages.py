"""What actor-critics learn from, made of recorded rewards and values: advantages, and returns for the critic."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from learners.objective import Batch, MethodError
from learners.targets import explained_variance, gae, has_successor, standardise

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model


@dataclass(frozen=True)
class Advantages:
    """How advantages and returns are made of recorded rewards and values.

    Attributes:
        gamma: discount per row.
        lam: decay of the advantage estimator.
        reward_clip: rewards are limited to +- this; None: as they come.
        scale_reward: divide rewards by the running standard deviation of the discounted return, limited to +-10. Needs
            a model with `normalise=True`.
        normalise: mean 0 and standard deviation 1 over the whole batch of all ranks.
    """

    gamma: float = 0.99
    lam: float = 0.95
    reward_clip: float | None = None
    scale_reward: bool = False
    normalise: bool = True

    @torch.no_grad()
    def columns(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """`advantage`, `return`, `counted` (the rows that train), and `explained_variance` of the recorded values."""
        value = successor_values(model, batch)
        flags = batch["terminated"], batch["truncated"], batch["mask"]
        advantage = gae(self.rewards(model, batch), value, *flags, gamma=self.gamma, lam=self.lam)
        counted = has_successor(batch["mask"])
        explained = explained_variance(value, advantage + value, counted, total=group.sum)
        columns = {"return": advantage + value, "counted": counted, "explained_variance": explained.expand_as(value)}
        if self.normalise:
            advantage = standardise(advantage, counted, total=group.sum)
        return columns | {"advantage": advantage}

    def rewards(self, model: "Model", batch: Batch) -> Tensor:
        """The rewards that returns are made of, (B, T).

        Raises:
            MethodError: `scale_reward` without running moments in the model.
        """
        reward = batch["reward"]
        if self.reward_clip is not None:
            reward = reward.clamp(-self.reward_clip, self.reward_clip)
        if not self.scale_reward:
            return reward
        if "discounted_return" not in model.moments:
            raise MethodError("scale_reward needs the moments of discounted_return: model with normalise=True")
        # Not centred: that would change which episode lengths pay.
        return (reward * model.moments_by_column["discounted_return"].scale()).clamp(-10, 10)


def value_error(value: Tensor, batch: Batch, *, clip: float | None = None) -> Tensor:
    """Half the squared error of the values, (B, T).

    Args:
        value: the critic's, (B, T).
        batch: with `return`, and the recorded `value`.
        clip: where given, the error counts as the larger of the free value's and of the recorded one's that moved no
            further than this towards it.
    """
    error = (value - batch["return"]).square()
    if clip is not None:
        moved = (value - batch["value"]).clamp(-clip, clip)
        error = torch.maximum(error, (batch["value"] + moved - batch["return"]).square())
    return 0.5 * error


def successor_values(model: "Model", batch: Batch) -> Tensor:
    """Values of all rows, (B, T): the recorded ones where a decision was made, the model's own elsewhere.

    Elsewhere are final observations and the row after the window, whose values nobody recorded. Without a core only
    these rows are computed, a few of a batch.
    """
    elsewhere = batch["mask"] == 0
    if model.core is not None:
        return torch.where(elsewhere, model(batch).value.float(), batch["value"])
    value = batch["value"].clone()
    rows = {name: column[elsewhere].unsqueeze(1) for name, column in model.observation(batch).items()}
    if elsewhere.any():
        value[elsewhere] = model(rows).value.squeeze(1).float()
    return value
