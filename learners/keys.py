"""Keys of a momentum encoder: what a query is compared with when only one side learns."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learners.objective import Batch

if TYPE_CHECKING:
    from learners.model import Model

KEY_ROWS = 256
"""Rows whose keys are computed at once: more would only take more memory."""


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
