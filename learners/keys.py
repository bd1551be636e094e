"""Keys: what a query is compared with, from all learners' minibatches; those of a momentum encoder."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from learners.objective import Batch

if TYPE_CHECKING:
    from learners.model import Model

KEY_ROWS = 256
"""Rows whose keys are computed at once: more would only take more memory."""


@dataclass(frozen=True)
class Keys:
    """What the queries of a minibatch are compared with: the keys of all learners' minibatches.

    Attributes:
        key: of each row, of W windows, with gradient where they are learned.
        valid: which of them may be compared with.
        own: the numbers, among all of these rows, of this learner's.
    """

    key: Float[Tensor, "W T F"]
    valid: Bool[Tensor, "W T"]
    own: Int[Tensor, "B T"]


def all_keys(model: "Model", key: Float[Tensor, "B T F"], mask: Float[Tensor, "B T"]) -> Keys:
    """The keys of all learners, so that two of them contrast what one would; every one of them must call this.

    Args:
        model: as an update hands it over, among its learners (`Model.among`).
        key: of this learner's rows.
        mask: 1 where they may be compared with.
    """
    everyone = model.group.rows(mask)
    own = torch.arange(mask.numel(), device=mask.device).view(mask.shape) + everyone.before * mask.shape[1]
    return Keys(everyone(key), everyone(mask > 0), own)


@torch.no_grad()
def slow_keys(model: "Model", observation: Batch, projection: nn.Module) -> Float[Tensor, "n F"]:
    """Keys of rows, without gradient: made once per batch, since the slow encoder hardly moves within a learner step.

    With several epochs, a pass of the slow encoder in each would cost a sixth of all learning.

    Args:
        model: with a slow copy of its encoder.
        observation: columns (n, ...), images stacked.
        projection: from features to keys, itself a slow copy.
    """
    rows = len(next(iter(observation.values())))
    pieces = [
        {name: column[start : start + KEY_ROWS] for name, column in observation.items()}
        for start in range(0, rows, KEY_ROWS)
    ]
    return torch.cat([projection(model.encode(piece, model.slow("encoder"))) for piece in pieces])
