"""What a learner minimises: named terms over masked rows, averaged in one place.

An objective never averages. It returns `Term`s, one number per row, and `reduce` alone turns them into a loss by the
mask count of all ranks together, so that two learners on halves of a batch with uneven masks equal one on the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model, Output

Batch = dict[str, Tensor]
"""Columns of a batch, each (B, T, ...), time-aligned as in the row layout."""


class MethodError(ValueError):
    """An objective, a model and spaces that do not fit together: says what was got, what was wanted, what to change."""


@dataclass(frozen=True)
class Term:
    """One named part of a loss before averaging.

    Attributes:
        value: one number per row, (B, T).
        mask: 1 where the row counts, same shape.
        weight: its factor in the loss. 0 makes it a metric: averaged like any other term, never differentiated.
    """

    value: Float[Tensor, "B T"]
    mask: Float[Tensor, "B T"]
    weight: float = 1.0


class Objective:
    """A loss and what it needs, as a value: subclasses are frozen dataclasses whose fields are the hyper-parameters.

    Attributes:
        group: prefix of its metrics' tags, e.g. "train" or "contrast".
        slow: parts of the model that it reads as slow copies, e.g. ("encoder",). A `learners.update.Average` must
            move each of them.
        recurrent: whether its terms need whole windows in time order rather than shuffled rows.
        trains: parts whose parameters it may move. The engine asserts that no other one received a gradient.
    """

    group: ClassVar[str] = "train"
    slow: ClassVar[tuple[str, ...]] = ()
    recurrent: ClassVar[bool] = False
    trains: ClassVar[tuple[str, ...]] = ("encoder", "core", "policy", "value", "value_encoder")

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """Modules that this objective adds to the model, by name, found again as `model.heads[name]`."""
        return {}

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """New columns, once per batch before the first gradient step, on whole windows and without gradient.

        Recorded columns are never rewritten: a relabelled reward gets a name of its own.
        """
        return {}

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """The named terms of a minibatch, given the model's output on it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sum(Objective):
    """Several objectives on one forward pass: {"ppo": (1.0, PPO()), "curl": (0.5, Curl())}.

    Terms and metrics keep their own objective's tags; weights multiply.
    """

    parts: Mapping[str, tuple[float, Objective]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slow", tuple(dict.fromkeys(part for _, o in self.parts.values() for part in o.slow)))
        object.__setattr__(self, "trains", tuple(dict.fromkeys(p for _, o in self.parts.values() for p in o.trains)))
        object.__setattr__(self, "recurrent", any(objective.recurrent for _, objective in self.parts.values()))

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """All parts' heads together."""
        return {name: head for _, objective in self.parts.values() for name, head in objective.heads(model).items()}

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """All parts' columns together."""
        columns: Batch = {}
        for _, objective in self.parts.values():
            columns |= objective.prepare(model, batch, group)
        return columns

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """All parts' terms, tagged, weighted by the part's weight.

        Raises:
            MethodError: two parts give a term of the same tag; names it.
        """
        terms: dict[str, Term] = {}
        for weight, objective in self.parts.values():
            for tag, term in tagged_terms(objective, model, out, batch).items():
                if tag in terms:
                    raise MethodError(f"two parts of a Sum give the term {tag}: give one of them another group")
                terms[tag] = Term(term.value, term.mask, weight * term.weight)
        return terms


def tagged_terms(objective: Objective, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
    """An objective's terms under their metric tags, "train/value_loss"; those of a `Sum` are tagged already."""
    terms = objective.terms(model, out, batch)
    if isinstance(objective, Sum):
        return terms
    return {f"{objective.group}/{name}": term for name, term in terms.items()}


def reduce(terms: Mapping[str, Term], group: "Group") -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and every term's mean, averaged by the global mask count over all ranks.

    The loss is this rank's share: the sum over ranks of its gradients is the gradient of the global mean.

    Returns:
        loss: a scalar with gradient, this rank's numerators over the global counts.
        means: detached scalars, already summed over ranks: the same on each of them.

    Raises:
        ValueError: a term's mask or value is not (B, T), or they differ; names the term and both shapes.
    """
    for name, term in terms.items():
        if term.value.shape != term.mask.shape or term.value.ndim != 2:
            got = f"value {tuple(term.value.shape)}, mask {tuple(term.mask.shape)}"
            raise ValueError(f"term {name}: {got}; both must be (B, T)")
    sums = torch.stack([(term.value * term.mask).sum() for term in terms.values()])
    counts = torch.stack([term.mask.sum() for term in terms.values()])
    totals = group.sum(torch.cat([sums.detach(), counts]))
    counts = totals[len(terms) :].clamp(min=1.0)
    weights = torch.tensor([term.weight for term in terms.values()], dtype=sums.dtype, device=sums.device)
    used = weights != 0
    loss = (sums[used] * weights[used] / counts[used]).sum()
    return loss, dict(zip(terms, (totals[: len(terms)] / counts).unbind(), strict=True))
