"""TRPO's step (Schulman et al., arXiv:1502.05477): as far along the natural gradient as a bound on the KL allows.

The bound is on the distance from the policy that *acted*, as it was recorded, not from the one that the step starts at:
what earlier updates of the same learner step did to an encoder that they share with the policy counts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from learners.behaviour import behaviour, kl_from_behaviour
from learners.group import Group
from learners.model import ActorCritic, Model
from learners.natural_gradient import Product, conjugate_gradient, fisher_product, flat, twice_differentiable
from learners.not_finite import check_finite
from learners.objective import Batch, Objective, Term, reduce, tagged_terms
from learners.output import Output
from learners.update import Priorities, Update, UpdateError

POLICY_PARTS = ("encoder", "core", "policy")
"""What the policy is made of, and all that the step moves."""

SLACK = 1.5
"""A step is taken up to this many times the bound, which its length meets only to second order."""

STILL = 0.01
"""A policy nearer to the one that acted than this share of the bound has not been moved by earlier updates."""


@dataclass(frozen=True)
class TrustRegion:
    """One natural-gradient step of the policy per learner step, within a bound on its KL from the one that acted.

    Needs a model with `record_distribution=True`. Updates that move the policy's encoder or core belong in front of it.

    Attributes:
        objectives: what to minimise, of one table: a `learners.objectives.trpo.Surrogate`.
        max_kl: the bound, in nats, on the mean over rows.
        iterations: of the conjugate gradient, each one product with the Fisher matrix.
        damping: added to the Fisher matrix's diagonal.
        backtracks: step lengths that are tried before the parameters are left as they were.
        shrink: from one length to the next.
        fisher_every: products see every so-many-th decision (windows with a core): 1 all, 5 as in OpenAI baselines.
    """

    objectives: Mapping[str, Objective]
    max_kl: float = 0.01
    iterations: int = 10
    damping: float = 0.1
    backtracks: int = 10
    shrink: float = 0.5
    fisher_every: int = 1

    def __post_init__(self) -> None:
        if len(self.objectives) != 1:
            raise UpdateError(f"TrustRegion minimises on one table, got {sorted(self.objectives)}")
        for name in ("iterations", "backtracks", "fisher_every"):
            if not getattr(self, name) >= 1:
                raise UpdateError(f"{name} is {getattr(self, name)}, wanted at least 1")
        if not (0 < self.max_kl < math.inf and self.damping >= 0 and 0 < self.shrink < 1):
            raise UpdateError(
                f"max_kl {self.max_kl}, damping {self.damping}, shrink {self.shrink}: wanted max_kl above 0 "
                "and finite, damping at least 0, shrink between 0 and 1"
            )

    def start(self, model: Model, group: Group) -> "TrustRegionEngine":
        """The engine, which remembers the policy of the last version."""
        if not model.spec.record_distribution:
            raise UpdateError("TrustRegion needs what the policy drew from: a model with record_distribution=True")
        return TrustRegionEngine(self, model, group)


def check_order(updates: Sequence[Update], description: ActorCritic) -> None:
    """What is published is the policy whose KL was bounded: no later update of a learner step may move it.

    Raises:
        UpdateError: one would; names it, its table and the parts.
    """
    first = next((place for place, update in enumerate(updates) if isinstance(update, TrustRegion)), len(updates))
    for update in updates[first + 1 :]:
        for table, objective in update.objectives.items():
            if moved := [part for part in POLICY_PARTS if part in objective.moves(description)]:
                raise UpdateError(
                    f'{type(update).__name__} on table "{table}" may move {", ".join(moved)} after TrustRegion has '
                    "bounded the KL of the policy: put it in front of TrustRegion, or if only the critic needs it, "
                    "give that an encoder of its own, ActorCritic(value_encoder=...)"
                )


Direction = Callable[[float], Tensor]
"""The change of all parameters side by side, for a share of the step's length."""


@dataclass(frozen=True)
class Stand:
    """Where a policy stands, over the rows of all ranks.

    Attributes:
        loss: what is minimised.
        kl: from the policy that acted, in nats.
        means: of the objective's terms, by tag.
    """

    loss: float
    kl: float
    means: dict[str, float]


class TrustRegionEngine:
    """A running `TrustRegion`: waits for the other ranks in every product and at every step length."""

    def __init__(self, update: TrustRegion, model: Model, group: Group) -> None:
        self.update, self.model, self.group = update, model, group
        ((self.table, self.objective),) = update.objectives.items()
        named = [(name.split(".")[0], parameter) for name, parameter in model.named_parameters()]
        self.parameters: list[Tensor] = [
            parameter for part, parameter in named if part in POLICY_PARTS and parameter.requires_grad
        ]
        self.sizes = [parameter.numel() for parameter in self.parameters]
        self.whole_windows = model.core is not None or self.objective.recurrent
        self.priorities: Priorities = {}
        self.published = self._copies()

    def step(self, batches: Mapping[str, Batch], *, progress: float) -> dict[str, float]:
        """One step of the policy, or none.

        Raises:
            NotFinite: a term, a gradient or a product with the Fisher matrix; the parameters are those before.
        """
        batch = batches[self.table] | self.objective.prepare(self.model, batches[self.table], self.group)
        rows = batch if self.whole_windows else decided_rows(batch)
        start, direction, residual = self._direction(rows)
        # Where earlier updates alone broke the bound, no worse than the policy that acted is all that can be asked.
        least = start.loss if start.kl <= SLACK * self.update.max_kl else self._acted(rows).loss
        found, tried = (None, 0) if direction is None else self._search(rows, direction, least)
        undone = found is None and start.kl > SLACK * self.update.max_kl
        if undone:
            self._set(self.published)
        end = found or (self._stand(rows) if undone else start)
        self.published = self._copies()
        return end.means | {
            "train/kl": end.kl,
            "train/kl_before": start.kl,
            "train/surrogate_gain": least - end.loss if found else 0.0,
            "train/line_search_steps": float(tried),
            "train/step_accepted": float(found is not None),
            "train/step_undone": float(undone),
            "train/cg_residual": residual,
        }

    def _direction(self, rows: Batch) -> tuple[Stand, Direction | None, float]:
        """Where the policy stands, the step as a function of its length's share, and the solution's relative error.

        Without gradient there is no step. Where earlier updates moved the policy, its KL has a slope here, and the step
        that minimises the damped quadratic model of the KL comes first, so that what remains of the bound is spent from
        the bottom of that bowl.
        """
        loss, kl, start = self._measured(self.model(rows), rows)
        moved = start.kl > STILL * self.update.max_kl
        gradient = self._flat_gradient(loss, retain=moved)
        slope = self._flat_gradient(kl) if moved else torch.zeros_like(gradient)
        self._check_finite(start.means | {"train/kl_before": start.kl}, gradient + slope, rows)
        if not gradient.any():
            return start, None, 0.0
        solve = partial(conjugate_gradient, self._fisher(rows), iterations=self.update.iterations)
        step, rest = solve(-gradient)
        repair, _ = solve(-slope)
        residual = float(rest.norm() / gradient.norm())
        self._check_finite({"train/cg_residual": residual}, step + repair, rows)
        room = (self.update.max_kl - start.kl * moved - 0.5 * repair @ slope).clamp(min=0)
        step *= (2 * room / (step @ (-gradient - rest))).sqrt()
        return start, lambda share: repair + share * step, residual

    def _search(self, rows: Batch, direction: Direction, least: float) -> tuple[Stand | None, int]:
        """Shorter and shorter steps until one is within the bound and no worse; without any, the parameters as before.

        Returns:
            Where the policy stands then (None: where it stood), and how many lengths were tried.
        """
        before = self._copies()
        for tried in range(self.update.backtracks):
            step = direction(self.update.shrink**tried)
            pieces = step.split(self.sizes)
            self._set([old + piece.view_as(old) for old, piece in zip(before, pieces, strict=True)])
            stand = self._stand(rows)
            if stand.kl <= SLACK * self.update.max_kl and stand.loss <= least:
                return stand, tried + 1
        self._set(before)
        return None, self.update.backtracks

    def _fisher(self, rows: Batch) -> Product:
        """Products with the damped Fisher matrix of the rows of all ranks."""
        some = {name: column[:: self.update.fisher_every] for name, column in rows.items()}
        weight = some["mask"] / self.group.sum(some["mask"].sum()).clamp(min=1)
        with twice_differentiable(recurrent=self.model.core is not None):
            own = fisher_product(self.model(some).dist, weight, self.parameters)
        return lambda vector: self.group.sum(own(vector)) + self.update.damping * vector

    def _measured(self, out: Output, rows: Batch) -> tuple[Tensor, Tensor, Stand]:
        """This rank's share of the loss and of the KL, with gradient, and where the policy stands over all ranks."""
        with self.model.among(self.group):
            terms = tagged_terms(self.objective, self.model, out, rows)
        loss, means = reduce(terms, self.group)
        kl, mean = reduce({"kl": Term(kl_from_behaviour(out.dist, rows), rows["mask"])}, self.group)
        values = dict(zip([*means, "kl"], torch.stack([*means.values(), mean["kl"]]).tolist(), strict=True))
        total = sum(term.weight * values[tag] for tag, term in terms.items())
        return loss, kl, Stand(total, values.pop("kl"), values)

    @torch.no_grad()
    def _stand(self, rows: Batch) -> Stand:
        return self._measured(self.model(rows), rows)[2]

    @torch.no_grad()
    def _acted(self, rows: Batch) -> Stand:
        """Where the policy stood that acted."""
        out = self.model(rows)
        return self._measured(out.having(dist=behaviour(out.dist, rows)), rows)[2]

    def _flat_gradient(self, of: Tensor, *, retain: bool = False) -> Tensor:
        """With respect to the policy's parameters, side by side, summed over ranks."""
        return self.group.sum(flat(torch.autograd.grad(
            of, self.parameters, retain_graph=retain, allow_unused=True, materialize_grads=True
        )))  # fmt: skip

    def _check_finite(self, values: Mapping[str, float], vector: Tensor, rows: Batch) -> None:
        """These values and this vector, one number for each of the policy's, are numbers."""
        norm = float(vector.norm())
        if all(map(math.isfinite, [*values.values(), norm])):
            return
        for parameter, piece in zip(self.parameters, vector.split(self.sizes), strict=True):
            parameter.grad = piece.view_as(parameter)  # where what raises looks for it
        values = {**values, "train/policy_gradient_norm": norm}
        tables = {self.table: rows}
        check_finite(values, objectives=self.update.objectives, slices=tables, model=self.model, group=self.group)

    def _copies(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, values)

    def state(self) -> dict[str, Tensor]:
        """Nothing: what it remembers is the model of the checkpoint."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Remember the restored model's policy."""
        self.published = self._copies()


def decided_rows(batch: Batch) -> Batch:
    """The batch's decided rows in the order of its windows, (n, 1, ...)."""
    kept = batch["mask"] > 0
    return {name: column[kept].unsqueeze(1) for name, column in batch.items() if column.ndim > 1}
