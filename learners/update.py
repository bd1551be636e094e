"""How parameters move: an `Update` says what to do, its `Engine` does it on one learner and keeps the state.

A method lists its updates in order; a learner step runs each once. Here are the ones that need no gradient;
`learners.gradient` has the one that does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from learners.group import Group
from learners.model import Model
from learners.objective import Batch, Objective


class UpdateError(ValueError):
    """Updates that do not fit together: names the part, the objective and what to change."""


Priorities = dict[str, tuple[np.ndarray, np.ndarray]]
"""By table, ids of windows (n,) and priorities (n,)."""


@runtime_checkable
class Engine(Protocol):
    """A running update.

    Attributes:
        priorities: by table, ids of windows (n,) of its last step and their new priorities (n,).
    """

    priorities: Priorities

    def step(self, batches: Mapping[str, Batch], *, progress: float) -> dict[str, float]:
        """Run the update once.

        Args:
            batches: the learner step's batches by table, windows (B, T, ...) with stacked frames.
            progress: share of the run that is over, in [0, 1]; schedules follow it.

        Returns:
            Metrics by tag, the same on every rank.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that must survive a checkpoint."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""
        ...


@runtime_checkable
class Update(Protocol):
    """A way of moving parameters, as a value."""

    @property
    def objectives(self) -> Mapping[str, Objective]:
        """What it minimises, by table; empty where it minimises nothing."""
        ...

    def start(self, model: Model, group: Group) -> Engine:
        """The engine that carries it out on this learner."""
        ...


@dataclass(frozen=True)
class Average:
    """A slow copy: slow <- rate * part + (1 - rate) * slow.

    Attributes:
        part: "encoder" or a head by its path, "curl.projection".
        rate: 1 copies, 0 never moves; CURL's momentum m is 1 - rate.
    """

    part: str
    rate: float = 0.05
    objectives: Mapping[str, Objective] = field(default_factory=dict)

    def start(self, model: Model, group: Group) -> "AverageEngine":
        """The copy itself lives in the model, so a checkpoint of the model holds it."""
        return AverageEngine(self, model)


class AverageEngine:
    """A running `Average`."""

    def __init__(self, update: Average, model: Model) -> None:
        self.update = update
        self.priorities: Priorities = {}
        self.source: list[Tensor] = list(model.part(update.part).parameters())
        self.target: list[Tensor] = list(model.slow(update.part).parameters())

    @torch.no_grad()
    def step(self, batches: Mapping[str, Batch], *, progress: float) -> dict[str, float]:
        """Move the copy once towards the part."""
        torch._foreach_lerp_(self.target, self.source, self.update.rate)
        return {}

    def state(self) -> dict[str, Tensor]:
        """Nothing: the copy is part of the model."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take back."""


@dataclass(frozen=True)
class Normalise:
    """Running moments of a table's columns, which the model divides by: observations, and returns for reward scaling.

    Made after the policy has moved, so that actor and learner use the same statistics for the same rows; the new ones
    travel to the actors with the next version.

    Attributes:
        table: where the rows come from.
        objectives: none.
    """

    table: str
    objectives: Mapping[str, Objective] = field(default_factory=dict)

    def start(self, model: Model, group: Group) -> "NormaliseEngine":
        """The moments live in the model."""
        if not model.moments:
            raise UpdateError("Normalise finds no moments: describe the model with normalise=True")
        return NormaliseEngine(self, model, group)


class NormaliseEngine:
    """A running `Normalise`."""

    def __init__(self, update: Normalise, model: Model, group: Group) -> None:
        self.update, self.model, self.group = update, model, group
        self.priorities: Priorities = {}

    @torch.no_grad()
    def step(self, batches: Mapping[str, Batch], *, progress: float) -> dict[str, float]:
        """Merge the batch's decided rows into the moments, over all ranks."""
        batch = batches[self.update.table]
        for column, moments in self.model.moments_by_column.items():
            moments.update(batch[column].flatten(0, 1), batch["mask"].flatten(), self.group.sum)
        return {}

    def state(self) -> dict[str, Tensor]:
        """Nothing: the moments are part of the model."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take back."""
