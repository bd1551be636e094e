"""A2C, the synchronous advantage actor-critic (Mnih et al., arXiv:1602.01783, without the asynchrony)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from learners.advantages import Advantages, value_error
from learners.behaviour import log_ratio_to_behaviour
from learners.objective import Batch, Bound, Objective, Term
from learners.precision import same_policy

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model
    from learners.output import Output


@dataclass(frozen=True)
class A2C(Objective):
    """Policy gradient on n-step advantages, value regression and an entropy bonus.

    One gradient step per batch: after the first, its rows are not the policy's any more. With lam 1 returns are those
    of all rewards up to the window's end, plus the value there.

    Attributes:
        advantages: how they and returns are made.
        entropy: weight of the entropy bonus.
        value: weight of the value loss, which is half the squared error.
    """

    advantages: Advantages = Advantages(lam=1.0, normalise=False)
    entropy: float = 0.01
    value: float = 1.0

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """Advantages and returns, from recorded values and the learner's values of final observations."""
        return self.advantages.columns(model, batch, group)

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """Policy, value and entropy losses, and what tells whether these rows are the policy's own."""
        distance = log_ratio_to_behaviour(out.dist, batch).detach().exp() - 1
        return policy_gradient_terms(out, batch, value=self.value, entropy=self.entropy) | {
            "ratio_error": Term(distance.abs(), batch["counted"], 0.0)
        }

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """A ratio of 1 before the step."""
        return {"first_ratio_error": same_policy(model.precision, next(model.parameters()).device)}


def policy_gradient_terms(out: "Output", batch: Batch, *, value: float, entropy: float) -> dict[str, Term]:
    """The losses of an actor-critic whose policy follows the plain gradient of the log-probability.

    Args:
        out: the model's output on the batch.
        batch: prepared, with `advantage`, `return`, `counted` and `explained_variance`.
        value: weight of the value loss.
        entropy: weight of the entropy bonus.
    """
    counted = batch["counted"]
    # Rows without a decision hold arbitrary actions, whose log-probability may be infinite.
    log_prob = torch.where(counted > 0, out.dist.log_prob(batch["action"]), 0.0)
    return {
        "policy_gradient_loss": Term(-log_prob * batch["advantage"], counted),
        "value_loss": Term(value_error(out.value, batch), counted, value),
        "entropy_loss": Term(-out.dist.entropy(), counted, entropy),
        "explained_variance": Term(batch["explained_variance"], counted, 0.0),
    }
