"""Behaviour cloning: the recorded actions, made likely (Pomerleau, ALVINN, NIPS 1988)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from learners.objective import Batch, Objective, Term

if TYPE_CHECKING:
    from learners.model import Model
    from learners.output import Output


@dataclass(frozen=True)
class Clone(Objective):
    """Maximum likelihood of the recorded actions, for every distribution there is. The value head is left alone.

    Needs no actor: its rows may come from an imported store, and from several policies or people.

    Attributes:
        entropy: weight of an entropy bonus; a little keeps a policy that will be trained further from being certain.
    """

    group: ClassVar[str] = "clone"
    trains: ClassVar[tuple[str, ...]] = ("encoder", "core", "policy")

    entropy: float = 0.0

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """The loss, in nats, and how near the policy's likeliest actions are to the recorded ones."""
        decided, action = batch["mask"], batch["action"]
        # Rows without a decision hold arbitrary actions, whose likelihood and its gradient may not even be finite.
        kept = (decided > 0).view(*decided.shape, *(1,) * (action.ndim - 2))
        action = torch.where(kept, action, torch.zeros_like(action))
        name, nearness = agreement(out, action)
        return {
            "loss": Term(-out.dist.log_prob(action), decided),
            "entropy_loss": Term(-out.dist.entropy(), decided, self.entropy),
            name: Term(nearness, decided, 0.0),
        }


def agreement(out: "Output", action: Tensor) -> tuple[str, Tensor]:
    """How near the likeliest actions are to the recorded ones, and what that is called, (B, T).

    Choices: "accuracy", 1 where all parts of the action are the same. Continuous actions: "error", the Euclidean
    distance in the action's own units.
    """
    mode = out.dist.mode().detach()
    if action.is_floating_point():
        return "error", (mode - action).square().sum(-1).sqrt()
    same = mode == action
    return "accuracy", (same if same.ndim == 2 else same.all(-1)).float()
