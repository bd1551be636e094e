"""V-trace: an actor-critic on rows that older policies chose (Espeholt et al., IMPALA, arXiv:1802.01561)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from learners.advantages import Advantages
from learners.behaviour import log_ratio_to_behaviour
from learners.objective import Batch, Bound, MethodError, Objective, Term
from learners.objectives.a2c import policy_gradient_terms
from learners.precision import same_policy
from learners.targets import explained_variance, has_successor, standardise, vtrace

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model
    from learners.output import Output

LARGEST = 1e6
"""Ratios count no further, whatever the clips: a row that lags far behind must not make a metric infinite."""


@dataclass(frozen=True)
class VTrace(Objective):
    """Policy gradient, value regression and an entropy bonus, corrected for the lag between acting and learning.

    Values and log-probabilities are the learner's own, computed anew for each batch; of the acting policy only
    `log_prob` is read. Where nothing lags and lam is the same, this is A2C.

    Attributes:
        advantages: what they and targets are made with: lam is the decay of the corrections, 1 the paper's; advantages
            are normalised before the ratio weighs them.
        rho_clip: bound on the ratio in one-step errors and in the policy's gradient.
        c_clip: bound on the ratios that carry errors back over rows, at most `rho_clip`.
        entropy: weight of the entropy bonus.
        value: weight of the value loss, which is half the squared error.
    """

    advantages: Advantages = Advantages(lam=1.0, normalise=False)
    rho_clip: float = 1.0
    c_clip: float = 1.0
    entropy: float = 0.01
    value: float = 1.0

    def __post_init__(self) -> None:
        if not self.rho_clip >= self.c_clip > 0:
            raise MethodError(f"vtrace: wanted rho_clip >= c_clip > 0, got {self.rho_clip} and {self.c_clip}")

    @torch.no_grad()
    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """Targets, and advantages that carry the clipped ratio already."""
        out, counted = model(batch), has_successor(batch["mask"])
        ratio = log_ratio_to_behaviour(out.dist, batch | {"counted": counted}).exp().clamp(max=LARGEST)
        target, advantage = vtrace(
            ratio,
            self.advantages.rewards(model, batch),
            out.value,
            *(batch[name] for name in ("terminated", "truncated", "mask")),
            gamma=self.advantages.gamma,
            lam=self.advantages.lam,
            rho_clip=self.rho_clip,
            c_clip=self.c_clip,
        )
        if self.advantages.normalise:
            advantage = standardise(advantage, counted, total=group.sum)
        explained = explained_variance(out.value, target, counted, total=group.sum)
        return {
            "return": target,
            "advantage": ratio.clamp(max=self.rho_clip) * advantage,
            "counted": counted,
            "ratio": ratio,
            "explained_variance": explained.expand_as(target),
        }

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """Policy, value and entropy losses, and how far the policy was from the one that acted."""
        ratio, counted = batch["ratio"], batch["counted"]
        metrics = {
            "approx_kl": ratio - 1 - ratio.clamp(min=1e-12).log(),
            "clip_fraction": (ratio > self.rho_clip).float(),
            "ratio_error": (ratio - 1).abs(),
        }
        return policy_gradient_terms(out, batch, value=self.value, entropy=self.entropy) | {
            name: Term(value, counted, 0.0) for name, value in metrics.items()
        }

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """Where nothing lags, a ratio of 1 before the step."""
        return {"first_ratio_error": same_policy(model.precision, next(model.parameters()).device)}
