"""Checks of a run while it runs, on metrics that are computed anyway: what an objective says they must be."""

from collections.abc import Mapping, Sequence

from learners.burn_in import burn_in_rows
from learners.gradient import Gradient
from learners.model import Model
from learners.objective import Bound, tagged_bounds
from learners.update import Update
from replay.table import Table


class OutOfBounds(RuntimeError):
    """A metric left the range in which its objective can be right; names metric, value and range."""


class Checks:
    """What the objectives of a learner's updates declare (`Objective.bounds`).

    Bounds that hold only on-policy are kept for objectives whose table hands out rows of the newest weights alone
    (`max_lag=0`), in the first update that has an objective, and without augmentation or burn-in: otherwise the policy
    has moved since it acted, sees other frames, or starts from another state.

    Args:
        updates: of the learner, in order.
        model: on its device.
        tables: by name.
    """

    def __init__(self, updates: Sequence[Update], model: Model, tables: Mapping[str, Table]) -> None:
        self.bounds: dict[str, Bound] = {}
        first = True
        for update in updates:
            as_acted = first and not (isinstance(update, Gradient) and update.augment is not None)
            for name, objective in update.objectives.items():
                on_policy = as_acted and tables[name].reads_once and tables[name].max_lag == 0
                on_policy = on_policy and not burn_in_rows(model, tables[name].lead)
                bounds = tagged_bounds(objective, model)
                self.bounds |= {tag: bound for tag, bound in bounds.items() if on_policy or not bound.on_policy}
            first = first and not update.objectives

    def __call__(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Compare a learner step's metrics, the same on every rank, with their bounds.

        Returns:
            `checks/GROUP_NAME`, 1 where a bound that does not stop the run is left, else 0.

        Raises:
            OutOfBounds: one that does is left.
        """
        warnings = {}
        for tag, bound in self.bounds.items():
            if tag not in metrics:
                continue
            inside = bound.least <= metrics[tag] <= bound.most
            if not bound.stops:
                warnings[f"checks/{tag.replace('/', '_')}"] = float(not inside)
            elif not inside:
                wanted = f"{bound.least:g} to {bound.most:g}"
                raise OutOfBounds(f"{tag} is {metrics[tag]:.4g}, wanted {wanted}: {bound.otherwise}")
        return warnings
