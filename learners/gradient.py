"""Joint optimisation: a minibatch holds a slice of each table, all objectives' terms are summed, one backward pass."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from learners.adam import Adam
from learners.augment import Augmentation, augmented
from learners.group import Group
from learners.minibatches import Rows, Windows
from learners.model import Model
from learners.not_finite import check_finite
from learners.objective import Batch, Objective, Term, concluded, reduce, tagged_terms
from learners.priorities import TermSizes
from learners.update import Average, Priorities, Update, UpdateError


@dataclass(frozen=True)
class Gradient:
    """Minibatch descent on the summed objectives of one or several tables.

    Attributes:
        objectives: what to minimise on each table.
        lr: Adam's learning rate at the start.
        anneal: whether it falls linearly to 0 over the run.
        epochs: passes over each batch.
        minibatches: optimiser steps per pass.
        accumulate: parts in which a minibatch goes through the encoders, one after the other, so that only one part's
            activations are in memory. The loss is that of the whole minibatch, negatives included; the encoders'
            forward pass is made twice.
        compile: encoders are compiled with torch.compile; the first learner steps then take minutes.
        max_gradient_norm: global norm to which gradients are clipped.
        max_kl: stop a learner step's remaining minibatches once `train/approx_kl` exceeds it; None: never.
        augment: applied to what every objective sees, policy terms included ("crop only" where there is no
            contrastive term); None leaves frames as they were acted on.
        then: updates made after every optimiser step, such as the `Average` that moves a momentum encoder.
        priorities: by prioritised table, the tag of the term whose mean size over a window's rows becomes its priority,
            {"history": "contrast/loss"} for one that draws what is told apart worst.
    """

    objectives: Mapping[str, Objective]
    lr: float = 3e-4
    anneal: bool = False
    epochs: int = 4
    minibatches: int = 4
    accumulate: int = 1
    compile: bool = False
    max_gradient_norm: float = 0.5
    max_kl: float | None = None
    augment: Augmentation | None = None
    then: tuple[Update, ...] = ()
    priorities: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"epochs": 1, "minibatches": 1, "accumulate": 1}
        for name, least in {**counts, "lr": 0.0, "max_gradient_norm": 0.0}.items():
            if not getattr(self, name) >= least:  # not a number is no better
                raise UpdateError(f"{name} is {getattr(self, name)}, wanted at least {least}")

    def start(self, model: Model, group: Group) -> "GradientEngine":
        """Adam over the model's trainable parameters."""
        moved = {update.part for update in self.then if isinstance(update, Average)}
        for table, objective in self.objectives.items():
            for part in sorted(set(objective.slow) - moved):
                raise UpdateError(
                    f'the objective of table "{table}" reads a slow copy of "{part}" that nothing moves: '
                    f'add Average("{part}", rate=...) to Gradient(then=...)'
                )
        return GradientEngine(self, model, group)


class GradientEngine:
    """A running `Gradient`: owns the optimiser of this rank; waits for the other ranks in every minibatch."""

    def __init__(self, update: Gradient, model: Model, group: Group) -> None:
        self.update, self.model, self.group = update, model, group
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = Adam(self.parameters, lr=update.lr)
        if update.compile:
            model.compile_encoders()
        self.then = [after.start(model, group) for after in update.then]
        recurrent = model.core is not None or any(o.recurrent for o in update.objectives.values())
        self.pieces: type[Rows] | type[Windows] = Windows if recurrent else Rows
        self.checked = False
        self.priorities: Priorities = {}
        self.sizes = TermSizes(update.priorities)

    def step(self, batches: Mapping[str, Batch], *, progress: float) -> dict[str, float]:
        """All epochs over the batches; stops early where the policy moved further than `max_kl`."""
        self._set_learning_rate(progress)
        prepared = {
            table: batches[table] | objective.prepare(self.model, batches[table], self.group)
            for table, objective in self.update.objectives.items()
        }
        history = list(self._descend(prepared))
        self.priorities = self.sizes.take()
        closing = [concluded(o, self.model, prepared[table], self.group) for table, o in self.update.objectives.items()]
        return self._summary(history) | {tag: value for metrics in closing for tag, value in metrics.items()}

    def _descend(self, batches: Mapping[str, Batch]) -> Iterator[dict[str, float]]:
        """Minibatch after minibatch; each one's means."""
        tables = {table: self.pieces(batch) for table, batch in batches.items()}
        for _ in range(self.update.epochs):
            for slices in zip(*(pieces.shuffled(self.update.minibatches) for pieces in tables.values()), strict=True):
                values = self._minibatch(dict(zip(tables, slices, strict=True)))
                yield values
                if self.update.max_kl is not None and values.get("train/approx_kl", 0.0) > self.update.max_kl:
                    return

    def _set_learning_rate(self, progress: float) -> None:
        self.optimiser.lr = self.update.lr * (1.0 - progress) if self.update.anneal else self.update.lr

    def _minibatch(self, slices: Mapping[str, Batch]) -> dict[str, float]:
        """One joint backward pass and optimiser step; the terms' means."""
        slices = {table: self._augmented(batch) for table, batch in slices.items()}
        with self.model.encoding_in(self.update.accumulate), self.model.among(self.group):
            loss, means = reduce(self._terms(slices), self.group)
            for parameter in self.parameters:  # as `zero_grad`, without its twenty calls for each
                parameter.grad = None
            loss.backward()
        self.group.sum_gradients(self.model)
        if not self.checked:
            self._check_reach()
        length = norm([p.grad for p in self.parameters if p.grad is not None])
        numbers = torch.stack([*means.values(), length]).tolist()
        values = dict(zip([*means, "train/gradient_norm"], numbers, strict=True))
        check_finite(values, objectives=self.update.objectives, slices=slices, model=self.model, group=self.group)
        # As `torch.nn.utils.clip_grad_norm_`, whose passes over small gradients take 4 % of a learner step.
        self.optimiser.step(over=max(1.0, (numbers[-1] + 1e-6) / max(self.update.max_gradient_norm, 1e-30)))
        for after in self.then:
            after.step(slices, progress=0.0)
        return values

    def _terms(self, slices: Mapping[str, Batch]) -> dict[str, Term]:
        """The terms of all tables, from one forward pass over each."""
        terms: dict[str, Term] = {}
        for table, batch in slices.items():
            new = tagged_terms(self.update.objectives[table], self.model, self.model(batch), batch)
            if shared := terms.keys() & new.keys():
                raise UpdateError(f"several tables give the terms {sorted(shared)}: give one objective another group")
            self.sizes.note(table, batch, new)
            terms |= new
        return terms

    def _augmented(self, batch: Batch) -> Batch:
        if self.update.augment is None:
            return batch
        # An action mask is what the environment allows, not what is seen: with noise on it everything would be allowed.
        seen = {name: c for name, c in self.model.observation(batch).items() if name not in self.model.masks}
        columns = {name: column.flatten(0, 1) for name, column in seen.items()}
        changed = augmented(self.update.augment, columns, self.model.image_columns)
        return batch | {name: column.unflatten(0, batch["mask"].shape) for name, column in changed.items()}

    def _check_reach(self) -> None:
        """Once: no parameter outside what the objectives declare received a gradient."""
        declared = {"heads"}.union(*(each.moves(self.model.spec) for each in self.update.objectives.values()))
        for name, parameter in self.model.named_parameters():
            reached = parameter.grad is not None and bool(parameter.grad.any())
            if reached and name.split(".")[0] not in declared:
                raise UpdateError(f"{name} received a gradient, but the objectives declare only {sorted(declared)}")
        self.checked = True

    def _summary(self, history: list[dict[str, float]]) -> dict[str, float]:
        """Means over the minibatches; of the first minibatch where it alone tells (`ratio_error`)."""
        summary = {name: sum(values[name] for values in history) / len(history) for name in history[0]}
        if "train/ratio_error" in summary:
            summary["train/first_ratio_error"] = history[0]["train/ratio_error"]
            del summary["train/ratio_error"]
        full = self.update.epochs * self.update.minibatches
        return summary | {
            "train/learning_rate": self.optimiser.lr,
            "train/minibatches_done": len(history) / full,
        }

    def state(self) -> dict[str, Tensor]:
        """Adam's; schedules follow the run's progress and need none."""
        return self.optimiser.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back Adam's."""
        self.optimiser.restore(state)


SMALL = 2**17
"""Gradients of so many numbers or fewer are laid side by side: to copy them takes less than a norm of each."""


def norm(gradients: list[Tensor]) -> Tensor:
    """Of all gradients taken together."""
    if sum(gradient.numel() for gradient in gradients) <= SMALL:
        return torch.linalg.vector_norm(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
