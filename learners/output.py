"""What one forward pass of a model gives."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from learners.distributions import Distribution
from learners.nets.encoders import ImageEncoder, VectorEncoder
from learners.objective import Batch

if TYPE_CHECKING:
    from learners.model import Model


@dataclass(frozen=True, eq=False)
class Output:
    """What one forward pass gives, for rows (B, T): each part is computed when it is first asked for.

    So a critic's regression makes no pass through the policy's encoder, nor a policy's line search through the critic.
    Whether with gradients, the pass decides; the weights are those of the moment in which a part is asked for.

    Attributes:
        model: that makes it.
        batch: the rows.
        gradients: whether parts can be differentiated.
    """

    model: "Model"
    batch: Batch
    gradients: bool = field(default_factory=torch.is_grad_enabled)

    @cached_property
    def features(self) -> Float[Tensor, "B T F"]:
        """The encoder's."""
        return self._encoded(self.model.encoder)

    @cached_property
    def context(self) -> Float[Tensor, "B T H"]:
        """The core's; the features where there is no core."""
        return self._remembered[0]

    @cached_property
    def core_state(self) -> Tensor:
        """The core's state after the last row, (B, S); empty without a core."""
        return self._remembered[1]

    @cached_property
    def dist(self) -> Distribution:
        """The policy's distribution over actions."""
        context, masks = self.context, [self.batch[name] for name in self.model.masks]
        with torch.set_grad_enabled(self.gradients):
            return self.model.policy(context, *masks)

    @cached_property
    def value(self) -> Float[Tensor, "B T"]:
        """The critic's estimate, in the units of the (scaled) reward."""
        own = self.model.value_encoder
        features = self.context if own is None else self._encoded(own)
        with torch.set_grad_enabled(self.gradients):
            return self.model.value(features)

    def having(self, **parts: Any) -> "Output":
        """The same with these parts, by name, from which what was not asked for yet is computed."""
        other = Output(self.model, self.batch, self.gradients)
        other.__dict__.update(self.__dict__ | parts)
        return other

    @cached_property
    def _rows(self) -> tuple[torch.Size, Batch]:
        """Items and rows of each, and what encoders see of them, one after another."""
        observation = self.model.observation(self.batch)
        shape = next(iter(observation.values())).shape[:2]
        return shape, self.model.normalised({name: value.flatten(0, 1) for name, value in observation.items()})

    def _encoded(self, encoder: VectorEncoder | ImageEncoder) -> Tensor:
        shape, seen = self._rows
        with torch.set_grad_enabled(self.gradients):
            return self.model.through(encoder, seen).view(*shape, encoder.features)

    @cached_property
    def _remembered(self) -> tuple[Tensor, Tensor]:
        if self.model.core is None:
            return self.features, self.features.new_empty(0)
        state = self.batch["start_state" if "start_state" in self.batch else "core_state"][:, 0]
        features = self.features
        with torch.set_grad_enabled(self.gradients):
            return self.model.core(features, state, self.batch["step"] == 0)
