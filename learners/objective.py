"""What a learner minimises: named terms over masked rows, averaged in one place.

An objective never averages. It returns `Term`s, one number per row, and `reduce` alone turns them into a loss by the
mask count of all ranks together, so that two learners on halves of a batch with uneven masks equal one on the whole.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import ActorCritic, Model
    from learners.output import Output

Batch = dict[str, Tensor]
"""Columns of a batch, each (B, T, ...), time-aligned as in the row layout."""


HINGE = 1000.0
"""Weight of the squared excess of a term's mean over its limit."""


class MethodError(ValueError):
    """An objective, a model and spaces that do not fit together: says what was got, what was wanted, what to change."""


@dataclass(frozen=True)
class Term:
    """One named part of a loss before averaging.

    Attributes:
        value: one number per row, (B, T).
        mask: 1 where the row counts, same shape.
        weight: its factor in the loss. 0 makes it a metric: averaged like any other term, never differentiated.
        limit: where its mean over all ranks exceeds this, `HINGE` times the squared excess is added to the loss.
    """

    value: Float[Tensor, "B T"]
    mask: Float[Tensor, "B T"]
    weight: float = 1.0
    limit: float = math.inf


@dataclass(frozen=True)
class Bound:
    """The range of a metric in which its objective can be right, checked after every learner step.

    Attributes:
        least: the smallest value that is in order.
        most: the largest.
        otherwise: what it means when the range is left, and what to do.
        stops: whether the run ends then; if not, the metric `checks/...` is 1 instead of 0.
        on_policy: whether this holds only where the rows are of the very weights that the learner step began with.
    """

    least: float = -math.inf
    most: float = math.inf
    otherwise: str = ""
    stops: bool = True
    on_policy: bool = False


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

    def moves(self, description: "ActorCritic") -> tuple[str, ...]:
        """Those of `trains` that it may move in a model of this description."""
        return self.trains

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """New columns, once per batch before the first gradient step, on whole windows and without gradient.

        Recorded columns are never rewritten: a relabelled reward gets a name of its own.
        """
        return {}

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """The named terms of a minibatch, given the model's output on it."""
        raise NotImplementedError

    def conclude(self, model: "Model", batch: Batch, group: "Group") -> dict[str, float]:
        """Named metrics of the whole prepared batch after its last gradient step, such as what a controller acts on.

        Here, too, belongs what changes once per learner step: a buffer of a head, which checkpoints then hold. It must
        come out the same on every rank.
        """
        return {}

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """What its metrics must be in a learner step, by the names of its terms."""
        return {}


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

    def moves(self, description: "ActorCritic") -> tuple[str, ...]:
        """All that any part may move."""
        return tuple(dict.fromkeys(part for _, o in self.parts.values() for part in o.moves(description)))

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
                terms[tag] = Term(term.value, term.mask, weight * term.weight, term.limit)
        return terms

    def conclude(self, model: "Model", batch: Batch, group: "Group") -> dict[str, float]:
        """All parts' closing metrics, tagged."""
        parts = [concluded(objective, model, batch, group) for _, objective in self.parts.values()]
        return {tag: value for part in parts for tag, value in part.items()}

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """All parts' bounds, tagged."""
        return {tag: b for _, objective in self.parts.values() for tag, b in tagged_bounds(objective, model).items()}


def tagged_terms(objective: Objective, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
    """An objective's terms under their metric tags, "train/value_loss"; those of a `Sum` are tagged already."""
    terms = objective.terms(model, out, batch)
    if isinstance(objective, Sum):
        return terms
    return {f"{objective.group}/{name}": term for name, term in terms.items()}


def concluded(objective: Objective, model: "Model", batch: Batch, group: "Group") -> dict[str, float]:
    """An objective's closing metrics under their tags; those of a `Sum` are tagged already."""
    with torch.no_grad():
        metrics = objective.conclude(model, batch, group)
    return metrics if isinstance(objective, Sum) else {f"{objective.group}/{name}": v for name, v in metrics.items()}


def tagged_bounds(objective: Objective, model: "Model") -> dict[str, Bound]:
    """An objective's bounds under the tags of its metrics; those of a `Sum` are tagged already."""
    bounds = objective.bounds(model)
    return bounds if isinstance(objective, Sum) else {f"{objective.group}/{name}": b for name, b in bounds.items()}


def reduce(terms: Mapping[str, Term], group: "Group") -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and every term's mean, averaged by the global mask count over all ranks.

    The loss is this rank's share: the sum over ranks of its gradients is the gradient of the global mean, and of what
    its terms' limits add.

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
    terms, sums, counts = _summed(terms)
    totals = sums.detach()
    if group.size > 1:
        totals, counts = group.sum(torch.stack([totals, counts])).unbind()
    counts = counts.clamp(min=1.0)
    means = totals / counts
    weights = torch.tensor([term.weight for term in terms.values()], dtype=sums.dtype, device=sums.device)
    if any(term.limit < math.inf for term in terms.values()):
        limits = torch.tensor([term.limit for term in terms.values()], dtype=sums.dtype, device=sums.device)
        # The slope of the hinge at the global mean: each rank's share of the gradient is that of its own rows.
        weights = weights + 2 * HINGE * (means - limits).clamp(min=0)
    loss = torch.dot(sums, weights / counts)
    return loss, dict(zip(terms, means.unbind(), strict=True))


def _summed(terms: Mapping[str, Term]) -> tuple[dict[str, Term], Tensor, Tensor]:
    """The terms in another order; their sums over the rows that their masks count; how many these are: (terms,) each.

    Terms of one mask are summed at once. On small networks the many small operations would be a tenth of all time.
    """
    same: dict[int, list[str]] = {}
    for name, term in terms.items():
        same.setdefault(id(term.mask), []).append(name)
    sums, counts = [], []
    for names in same.values():
        mask = terms[names[0]].mask
        values = torch.stack([_differentiable(terms[name]) for name in names])
        sums.append((values * mask).sum((1, 2)))
        counts.append(mask.sum().expand(len(names)))
    ordered = {name: terms[name] for names in same.values() for name in names}
    return (ordered, sums[0], counts[0]) if len(same) == 1 else (ordered, torch.cat(sums), torch.cat(counts))


def _differentiable(term: Term) -> Tensor:
    """The term's value, cut from its gradient where it is a metric."""
    return term.value if term.weight != 0 or term.limit < math.inf else term.value.detach()
