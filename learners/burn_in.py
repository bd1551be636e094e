"""Burn-in: a core's state made fresh from the rows before a window (Kapturowski et al. 2019, R2D2, section 3)."""

import torch
from torch import Tensor

from learners.frames import stack_windows
from learners.model import Model
from learners.objective import Batch


def burn_in_rows(model: Model, lead: int) -> int:
    """How many of a table's `lead` rows warm up the core: those that frame stacks do not need."""
    return 0 if model.core is None else max(0, lead - (model.stack - 1 if model.image_columns else 0))


@torch.no_grad()
def burnt_in(model: Model, columns: Batch, *, lead: int) -> Batch:
    """The state from which a core starts each window, as a new column `start_state`; none without rows for it.

    The rows before a window run through encoder and core with the present weights, from the state recorded with the
    first of them, without gradient. Where a stream has too few rows before the window, the state recorded with the
    window stays. Once per learner step: all its minibatches start from the same states.

    Args:
        model: with or without a core.
        columns: of a table's batch on the device, (B, lead + T, ...), single frames.
        lead: rows before the window.
    """
    rows = burn_in_rows(model, lead)
    if not rows:
        return {}
    step, episode, recorded = (columns[name][:, lead - rows :] for name in ("step", "episode", "core_state"))
    before = {name: columns[name][:, lead - rows : lead] for name in (*model.observation_columns, "core_state", "step")}
    for name in model.image_columns:
        frames, steps = columns[name][:, :lead], columns["step"][:, :lead]
        before[name] = stack_windows(frames, steps, stack=model.stack, lead=lead - rows)
    # Nothing is read before a stream's first row, which is repeated instead.
    repeated = (step[:, 0] == step[:, 1]) & (episode[:, 0] == episode[:, 1])
    state = torch.where(repeated[:, None], recorded[:, rows], model(before).core_state)
    return {"start_state": _for_every_row(state, columns["step"].shape[1] - lead)}


def _for_every_row(state: Tensor, rows: int) -> Tensor:
    return state.unsqueeze(1).expand(-1, rows, -1)
