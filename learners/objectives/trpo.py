"""The halves of TRPO (Schulman et al., arXiv:1502.05477): what the policy's step increases, and the critic alone."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from learners.advantages import Advantages, value_error
from learners.behaviour import log_ratio_to_behaviour
from learners.objective import Batch, Bound, Objective, Term
from learners.objectives.ppo import surrogate
from learners.precision import same_policy

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import ActorCritic, Model
    from learners.output import Output


@dataclass(frozen=True)
class Surrogate(Objective):
    """The importance-weighted advantage, for a `learners.trust_region.TrustRegion`, which limits the step.

    Attributes:
        advantages: how they are made.
    """

    trains: ClassVar[tuple[str, ...]] = ("encoder", "core", "policy")

    advantages: Advantages = Advantages()

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """Advantages, from recorded values and the learner's values of final observations."""
        return self.advantages.columns(model, batch, group)

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """The surrogate with its sign changed, and the policy's entropy to look at."""
        gain = surrogate(log_ratio_to_behaviour(out.dist, batch).exp(), batch["advantage"])
        return {
            "surrogate_loss": Term(-gain, batch["counted"]),
            "entropy_loss": Term(-out.dist.entropy(), batch["counted"], 0.0),
        }

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """No KL before the step, where nothing else has moved the policy: the learner finds the one that acted."""
        ratio = same_policy(model.precision, next(model.parameters()).device)
        return {"kl_before": replace(ratio, least=-1e-4)}


@dataclass(frozen=True)
class Critic(Objective):
    """Regression of the values on the returns, and nothing else: the critic of a policy that moves in another way.

    Attributes:
        advantages: how returns are made; the policy's, so that both mean the same.
        clip: how far the value may leave the recorded one, in its units; None: free.
    """

    trains: ClassVar[tuple[str, ...]] = ("encoder", "core", "value", "value_encoder")

    advantages: Advantages = Advantages()
    clip: float | None = None

    def moves(self, description: "ActorCritic") -> tuple[str, ...]:
        """With an encoder of its own, nothing that the policy is made of."""
        return self.trains if description.value_encoder is None else ("value", "value_encoder")

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """Returns, from recorded values and the learner's values of final observations."""
        return self.advantages.columns(model, batch, group)

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """Half the squared error, and how much of the returns the recorded values explained."""
        return {
            "value_loss": Term(value_error(out.value, batch, clip=self.clip), batch["counted"]),
            "explained_variance": Term(batch["explained_variance"], batch["counted"], 0.0),
        }
