"""Joint optimisation: a minibatch holds a slice of each table, all objectives' terms are summed, one backward pass."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from learners.augment import Augmentation
from learners.group import Group
from learners.model import Model
from learners.objective import Batch, Objective, Term, reduce, tagged_terms
from learners.priorities import TermSizes
from learners.update import Average, Priorities, Update, UpdateError


class NotFinite(RuntimeError):
    """A loss or a gradient became NaN or infinite; names the term or the parameter."""


@dataclass(frozen=True)
class Gradient:
    """Minibatch descent on the summed objectives of one or several tables.

    Attributes:
        objectives: what to minimise on each table.
        lr: Adam's learning rate at the start.
        anneal: whether it falls linearly to 0 over the run.
        epochs: passes over each batch.
        minibatches: optimiser steps per pass.
        max_gradient_norm: global norm to which gradients are clipped.
        max_kl: stop a learner step's remaining minibatches once `train/approx_kl` exceeds it; None: never.
        augment: applied to the image that every objective sees, policy terms included ("crop only" where there is no
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
    max_gradient_norm: float = 0.5
    max_kl: float | None = None
    augment: Augmentation | None = None
    then: tuple[Update, ...] = ()
    priorities: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("minibatches", 1), ("lr", 0.0), ("max_gradient_norm", 0.0)):
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
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.Adam(parameters, lr=update.lr, eps=1e-5, fused=True)
        self.then = [after.start(model, group) for after in update.then]
        self.whole_windows = model.core is not None or any(o.recurrent for o in update.objectives.values())
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
        return self._summary(history)

    def _descend(self, batches: Mapping[str, Batch]) -> Iterator[dict[str, float]]:
        """Minibatch after minibatch; each one's means."""
        for _ in range(self.update.epochs):
            for slices in self._minibatches(batches):
                values = self._minibatch(slices)
                yield values
                if self.update.max_kl is not None and values.get("train/approx_kl", 0.0) > self.update.max_kl:
                    return

    def _set_learning_rate(self, progress: float) -> None:
        rate = self.update.lr * (1.0 - progress) if self.update.anneal else self.update.lr
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate

    def _minibatches(self, batches: Mapping[str, Batch]) -> Iterator[dict[str, Batch]]:
        """One shuffled pass: a dict with a slice of every table per minibatch."""
        split = whole_windows if self.whole_windows else shuffled_rows
        parts = [split(batch, self.update.minibatches) for batch in batches.values()]
        for slices in zip(*parts, strict=True):
            yield dict(zip(batches, slices, strict=True))

    def _minibatch(self, slices: Mapping[str, Batch]) -> dict[str, float]:
        """One joint backward pass and optimiser step; the terms' means."""
        terms: dict[str, Term] = {}
        for table, batch in slices.items():
            objective, batch = self.update.objectives[table], self._augmented(batch)
            new = tagged_terms(objective, self.model, self.model(batch), batch)
            if shared := terms.keys() & new.keys():
                raise UpdateError(f"several tables give the terms {sorted(shared)}: give one objective another group")
            self.sizes.note(table, batch, new)
            terms |= new
        loss, means = reduce(terms, self.group)
        self.optimiser.zero_grad()
        loss.backward()
        self.group.sum_gradients(self.model)
        if not self.checked:
            self._check_reach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.update.max_gradient_norm)
        values = dict(zip([*means, "train/gradient_norm"], torch.stack([*means.values(), norm]).tolist(), strict=True))
        self._check_finite(values)
        self.optimiser.step()
        for after in self.then:
            after.step(slices, progress=0.0)
        return values

    def _augmented(self, batch: Batch) -> Batch:
        if self.update.augment is None:
            return batch
        images = {name: self.update.augment(batch[name].flatten(0, 1)).unflatten(0, batch[name].shape[:2])
                  for name in self.model.image_columns}  # fmt: skip
        return batch | images

    def _check_reach(self) -> None:
        """Once: no parameter outside what the objectives declare received a gradient."""
        declared = {part for objective in self.update.objectives.values() for part in objective.trains} | {"heads"}
        for name, parameter in self.model.named_parameters():
            reached = parameter.grad is not None and bool(parameter.grad.any())
            if reached and name.split(".")[0] not in declared:
                raise UpdateError(f"{name} received a gradient, but the objectives declare only {sorted(declared)}")
        self.checked = True

    def _check_finite(self, values: Mapping[str, float]) -> None:
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            names = [n for n, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
            raise NotFinite(
                f"{', '.join(wrong)} became {values[wrong[0]]}; first parameter with a bad gradient: "
                f"{names[0] if names else 'none'}. The parameters are those before this step"
            )

    def _summary(self, history: list[dict[str, float]]) -> dict[str, float]:
        """Means over the minibatches; of the first minibatch where it alone tells (`ratio_error`)."""
        summary = {name: sum(values[name] for values in history) / len(history) for name in history[0]}
        if "train/ratio_error" in summary:
            summary["train/first_ratio_error"] = history[0]["train/ratio_error"]
            del summary["train/ratio_error"]
        full = self.update.epochs * self.update.minibatches
        return summary | {
            "train/learning_rate": self.optimiser.param_groups[0]["lr"],
            "train/minibatches_done": len(history) / full,
        }

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and step counts, by parameter number and name."""
        state: dict[int, dict[str, Any]] = self.optimiser.state_dict()["state"]
        return {f"{index}/{name}": value for index, values in state.items() for name, value in values.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back Adam's moments; schedules follow the run's progress and need no state."""
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        restored: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            index, name = key.split("/")
            if value.shape == parameters[int(index)].shape:
                # In the parameter's own memory format (channels_last): the fused optimiser pairs them as they lie.
                value = torch.empty_like(parameters[int(index)]).copy_(value)
            restored.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict(self.optimiser.state_dict() | {"state": restored})


def shuffled_rows(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch's decided rows in random order, as `parts` batches of shape (n, 1, ...)."""
    flat = {name: column.flatten(0, 1) for name, column in batch.items() if column.ndim > 1}
    decided = flat["mask"].nonzero().flatten()
    order = decided[torch.randperm(len(decided), device=decided.device)]
    for rows in order.tensor_split(parts):
        yield {name: column.index_select(0, rows).unsqueeze(1) for name, column in flat.items()}


def whole_windows(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch's windows in random order, as `parts` batches of shape (windows / parts, T, ...)."""
    order = torch.randperm(len(batch["mask"]), device=batch["mask"].device)
    for windows in order.tensor_split(parts):
        yield {name: column.index_select(0, windows) for name, column in batch.items()}
