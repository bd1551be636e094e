"""PPO with a clipped ratio (Schulman et al., arXiv:1707.06347)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from learners.objective import Batch, MethodError, Objective, Term
from learners.targets import explained_variance, gae, has_successor, standardise

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model, Output


@dataclass(frozen=True)
class PPO(Objective):
    """Clipped policy gradient, value regression and an entropy bonus.

    Reads the columns `log_prob` and `value` as the acting policy recorded them, never recomputed: the ratio is that of
    the learner's policy to the one that acted.

    Attributes:
        clip: how far the ratio may leave 1 before its gradient stops; infinity: none, the plain policy gradient.
        value_clip: how far the value may leave the recorded one, in its units; None: free.
        entropy: weight of the entropy bonus.
        value: weight of the value loss, which is half the squared error.
        gamma: discount per row.
        lam: decay of the advantage estimator.
        reward_clip: rewards are limited to +- this; None: as they come.
        scale_reward: divide rewards by the running standard deviation of the discounted return, limited to +-10. Needs
            a model with `normalise=True`.
        normalise_advantage: mean 0 and standard deviation 1 over the whole batch of all ranks.
    """

    clip: float = 0.2
    value_clip: float | None = None
    entropy: float = 0.01
    value: float = 0.5
    gamma: float = 0.99
    lam: float = 0.95
    reward_clip: float | None = None
    scale_reward: bool = False
    normalise_advantage: bool = True

    @torch.no_grad()
    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """Advantages and returns, from recorded values and the learner's values of final observations."""
        value = successor_values(model, batch)
        flags = batch["terminated"], batch["truncated"], batch["mask"]
        advantage = gae(self.rewards(model, batch), value, *flags, gamma=self.gamma, lam=self.lam)
        counted = has_successor(batch["mask"])
        explained = explained_variance(value, advantage + value, counted, total=group.sum)
        columns = {"return": advantage + value, "counted": counted, "explained_variance": explained.expand_as(value)}
        if self.normalise_advantage:
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
            raise MethodError("ppo: scale_reward needs the moments of discounted_return: model with normalise=True")
        # Not centred: that would change which episode lengths pay.
        return (reward * model.moments_by_column["discounted_return"].scale()).clamp(-10, 10)

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """Policy, value and entropy losses, and what tells whether the step was small."""
        counted, advantage = batch["counted"], batch["advantage"]
        # Rows without a decision hold arbitrary actions: a ratio of 1 keeps infinities out of their zero share.
        log_ratio = torch.where(counted > 0, out.dist.log_prob(batch["action"]) - batch["log_prob"], 0.0)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        distance = ratio.detach() - 1
        metrics = {
            "approx_kl": distance - log_ratio.detach(),
            "clip_fraction": (distance.abs() > self.clip).float(),
            "ratio_error": distance.abs(),
            "explained_variance": batch["explained_variance"],
        }
        return {
            "policy_gradient_loss": Term(-torch.minimum(ratio * advantage, clipped * advantage), counted),
            "value_loss": Term(self.value_error(out.value, batch), counted, self.value),
            "entropy_loss": Term(-out.dist.entropy(), counted, self.entropy),
        } | {name: Term(value, counted, 0.0) for name, value in metrics.items()}

    def value_error(self, value: Tensor, batch: Batch) -> Tensor:
        """Half the squared error of the values, (B, T); the larger of clipped and free where `value_clip` is set."""
        error = (value - batch["return"]).square()
        if self.value_clip is not None:
            moved = (value - batch["value"]).clamp(-self.value_clip, self.value_clip)
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
