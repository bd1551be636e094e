"""The distribution that acted: recorded with the rows, made again from them, and how far the policy is from it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from learners.distributions import Distribution
from learners.objective import Batch, MethodError

if TYPE_CHECKING:
    from learners.model import Model

PREFIX = "policy_"
"""In front of a distribution's parameter, it is the name of the column: "policy_logits"."""


def recorded(dist: Distribution) -> dict[str, Tensor]:
    """A distribution's parameters as columns to record."""
    return {PREFIX + name: value for name, value in dist.parameters().items()}


def behaviour(dist: Distribution, batch: Batch) -> Distribution:
    """The distribution that chose the batch's actions, of the same kind as `dist`, which is the policy's on its rows.

    Rows without a decision were chosen by nobody: there it is `dist` itself, without gradient, at distance 0.

    Raises:
        MethodError: the rows were recorded without it; names the missing column.
    """
    columns = {}
    for name, value in dist.parameters().items():
        if PREFIX + name not in batch:
            raise MethodError(
                f'the exact KL reads the column "{PREFIX}{name}", which these rows do not have: '
                "describe the model with record_distribution=True"
            )
        decided = (batch["mask"] > 0).view(*batch["mask"].shape, *(1,) * (value.ndim - batch["mask"].ndim))
        columns[name] = torch.where(decided, batch[PREFIX + name], value.detach())
    return cast(Distribution, replace(cast(Any, dist), **columns))


def kl_from_behaviour(dist: Distribution, batch: Batch) -> Float[Tensor, "B T"]:
    """KL(acted || policy) of each row, in nats, exact: the expectation over all actions, not an estimate from one.

    Args:
        dist: the policy's on the batch's rows.
        batch: with the columns of `recorded`.
    """
    return behaviour(dist, batch).kl(dist)


def log_ratio_to_behaviour(dist: Distribution, batch: Batch) -> Tensor:
    """Logarithm of how much likelier the policy makes the recorded action than the one that acted did, (B, T)."""
    # Rows without a decision hold arbitrary actions: a ratio of 1 keeps infinities out of their zero share.
    return torch.where(batch["counted"] > 0, dist.log_prob(batch["action"]) - batch["log_prob"], 0.0)


@torch.no_grad()
def importance(model: "Model", batch: Batch) -> Tensor:
    """How much likelier the policy makes each decision of a batch than the one that acted did, (n,).

    Those that are not a number are left out: the next learner step says what is wrong.
    """
    decided = batch["mask"] > 0
    log_prob = model(batch).dist.log_prob(batch["action"])
    ratio = (log_prob[decided].float() - batch["log_prob"][decided]).exp()
    return ratio[~ratio.isnan()]
