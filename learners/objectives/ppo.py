"""PPO with a clipped ratio, or with an adaptive penalty on the KL (Schulman et al., arXiv:1707.06347)."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from learners.advantages import Advantages, value_error
from learners.behaviour import kl_from_behaviour, log_ratio_to_behaviour
from learners.objective import Batch, Bound, MethodError, Objective, Term, reduce
from learners.precision import same_policy

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model
    from learners.output import Output


@dataclass(frozen=True)
class PPO(Objective):
    """Policy gradient that is kept near the acting policy, value regression and an entropy bonus.

    Reads the columns `log_prob` and `value` as the acting policy recorded them, never recomputed: the ratio is that of
    the learner's policy to the one that acted.

    Attributes:
        advantages: how they and returns are made.
        clip: how far the ratio may leave 1 before its gradient stops; infinity: none, the plain policy gradient.
        value_clip: how far the value may leave the recorded one, in its units; None: free.
        entropy: weight of the entropy bonus.
        value: weight of the value loss, which is half the squared error.
        kl_target: KL in nats, from the policy that acted, which a penalty steers to in place of the clip. Needs a model
            with `record_distribution=True`. None: the clip.
        kl_coefficient: the penalty's weight at the start; 0 stays 0.
        kl_hinge: multiple of the target beyond which a steep hinge holds the minibatch's KL; infinity: none.
    """

    advantages: Advantages = Advantages()
    clip: float = 0.2
    value_clip: float | None = None
    entropy: float = 0.01
    value: float = 0.5
    kl_target: float | None = None
    kl_coefficient: float = 1.0
    kl_hinge: float = 2.0

    def __post_init__(self) -> None:
        if self.kl_target is not None and not self.kl_target > 0:
            raise MethodError(f"kl_target is {self.kl_target}: wanted nats above 0, or None for the clip")

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """The penalty's coefficient, as "kl", where there is a target."""
        return {} if self.kl_target is None else {"kl": KlCoefficient(self.kl_coefficient)}

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """Advantages and returns, from recorded values and the learner's values of final observations."""
        return self.advantages.columns(model, batch, group)

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """Policy, value and entropy losses, and what tells whether the step was small."""
        counted, advantage = batch["counted"], batch["advantage"]
        log_ratio = log_ratio_to_behaviour(out.dist, batch)
        ratio = log_ratio.exp()
        clip = self.clip if self.kl_target is None else math.inf
        distance = ratio.detach() - 1
        error = distance.abs()
        metrics = {
            "approx_kl": distance - log_ratio.detach(),
            "clip_fraction": (error > clip).float(),
            "ratio_error": error,
            "explained_variance": batch["explained_variance"],
        }
        terms = {
            "policy_gradient_loss": Term(-surrogate(ratio, advantage, clip=clip), counted),
            "value_loss": Term(value_error(out.value, batch, clip=self.value_clip), counted, self.value),
            "entropy_loss": Term(-out.dist.entropy(), counted, self.entropy),
        } | {name: Term(value, counted, 0.0) for name, value in metrics.items()}
        return terms if self.kl_target is None else terms | self._penalty(model, out, batch, self.kl_target)

    def _penalty(self, model: "Model", out: "Output", batch: Batch, target: float) -> dict[str, Term]:
        kl = kl_from_behaviour(out.dist, batch)
        coefficient = cast(KlCoefficient, model.heads["kl"]).value
        return {
            "kl_penalty": Term(coefficient * kl, batch["counted"]),
            "minibatch_kl": Term(kl, batch["counted"], 0.0, limit=self.kl_hinge * target),
        }

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """A ratio of 1 before the first step, and a KL that is one and small, or not far from its target."""
        ratio = same_policy(model.precision, next(model.parameters()).device)
        bounds = {"first_ratio_error": ratio, "approx_kl": Bound(-1e-3, 1.0, stops=False)}
        return bounds if self.kl_target is None else bounds | {"kl": Bound(-1e-3, 5 * self.kl_target, stops=False)}

    def conclude(self, model: "Model", batch: Batch, group: "Group") -> dict[str, float]:
        """With a target: the exact KL that the learner step came to, and the coefficient that it was made with.

        The coefficient of the next learner step follows from that KL.
        """
        if self.kl_target is None:
            return {}
        kl = reduce({"kl": Term(kl_from_behaviour(model(batch).dist, batch), batch["counted"], 0.0)}, group)[1]["kl"]
        coefficient = cast(KlCoefficient, model.heads["kl"])
        metrics = {"kl": float(kl), "kl_coefficient": float(coefficient.value)}
        coefficient.adapt(metrics["kl"], self.kl_target)
        return metrics


class KlCoefficient(nn.Module):
    """The weight of a KL penalty, a buffer, so that checkpoints hold it and all ranks start with the same.

    It adapts between bounds: after a long quiet time it must be able to come back, from 0 it could not.
    """

    least: ClassVar[float] = 1e-6
    most: ClassVar[float] = 1e6
    value: Tensor

    def __init__(self, start: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(start))

    @torch.no_grad()
    def adapt(self, kl: float, target: float) -> None:
        """Double it where the KL was above 1.5 times the target, halve it where below the target / 1.5 (section 4)."""
        if kl > 1.5 * target and self.value < self.most:
            self.value.mul_(2.0)
        elif kl < target / 1.5 and self.value > self.least:
            self.value.div_(2.0)


def surrogate(ratio: Tensor, advantage: Tensor, *, clip: float = math.inf) -> Tensor:
    """What a small step is to increase, (B, T): the ratio times the advantage, no better than with the ratio clipped.

    Without clip it is the importance-weighted advantage, of which TRPO limits the step in another way.
    """
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
