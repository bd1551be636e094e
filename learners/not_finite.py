"""What is said, and kept, when a loss or a gradient stops being a number."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from learners import checkpoint
from learners.group import Group
from learners.model import Model
from learners.objective import Batch, Objective, Sum, tagged_terms


class NotFinite(RuntimeError):
    """A loss or a gradient became NaN or infinite; names objective, term, parameter and columns.

    Attributes:
        evidence: the minibatch as "batch/TABLE/COLUMN" and the model as "model/NAME"; empty once it is kept.
    """

    def __init__(self, message: str, evidence: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(message)
        self.evidence = dict(evidence or {})


def check_finite(
    values: Mapping[str, float],
    *,
    objectives: Mapping[str, Objective],
    slices: Mapping[str, Batch],
    model: Model,
    group: Group,
) -> None:
    """After a backward pass and before its step: all that was computed is a number.

    Costs nothing until something is not; then the terms are computed again, one by one, to find the first that fails
    alone. All ranks see the same values, so all of them come here together.

    Args:
        values: the terms' means and the gradient's norm, the same on every rank.
        objectives: by table.
        slices: the minibatch, by table.
        model: with its gradients.
        group: whose ranks are asked for what they found.

    Raises:
        NotFinite: something is not a number.
    """
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return
    gradients = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    found = group.gather(_found(objectives, slices, model))
    where = "".join(
        f". {f'On learner {rank}' if group.size > 1 else 'Found'}: {text}" for rank, text in enumerate(found) if text
    )
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"batch/{table}/{name}": column for table, batch in slices.items() for name, column in batch.items()}
    raise NotFinite(
        f"{', '.join(wrong)} became {values[wrong[0]]}; first parameter with a bad gradient: "
        f"{gradients[0] if gradients else 'none'}{where}. The parameters are those before this step",
        tensors,
    )


def _found(objectives: Mapping[str, Objective], slices: Mapping[str, Batch], model: Model) -> str:
    """What this rank has that is not a number: parameters, columns, and the first term that fails alone."""
    parts = {
        "parameters": [name for name, tensor in model.state_dict().items() if _bad(tensor)],
        "columns": [f"{table}/{n}" for table, batch in slices.items() for n, c in batch.items() if _bad(c)],
        "term": list(_failing_terms(objectives, slices, model))[:1],
    }
    return "; ".join(f"{what} {', '.join(names[:5])}" for what, names in parts.items() if names)


def _failing_terms(objectives: Mapping[str, Objective], slices: Mapping[str, Batch], model: Model) -> Iterator[str]:
    """Terms whose mean, or whose own gradient, is not a number."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for table, objective in objectives.items():
        for part in _parts(objective):
            out = model(slices[table])
            for tag, term in tagged_terms(part, model, out, slices[table]).items():
                if _fails((term.value * term.mask).sum(), parameters):
                    yield f'{tag} of {type(part).__name__} on table "{table}"'


def _fails(total: Tensor, parameters: Sequence[nn.Parameter]) -> bool:
    if _bad(total) or not total.requires_grad:
        return _bad(total)
    gradients = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    return any(gradient is not None and _bad(gradient) for gradient in gradients)


def _parts(objective: Objective) -> list[Objective]:
    """The objectives that a `Sum` is made of."""
    if not isinstance(objective, Sum):
        return [objective]
    return [part for _, inner in objective.parts.values() for part in _parts(inner)]


def _bad(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(tensor.isfinite().all())


def kept(error: NotFinite, folder: Path) -> NotFinite:
    """The same error, its evidence in a folder that its message names; `learners.checkpoint.load` opens it."""
    try:
        checkpoint.save(folder, error.evidence, {"message": str(error)})
    except (OSError, SafetensorError) as trouble:  # what went wrong first is what matters
        return NotFinite(f"{error}; they and the minibatch could not be kept: {trouble}")
    return NotFinite(f"{error}; they and the minibatch are in {folder}")
