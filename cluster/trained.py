"""A run's trained policy: which checkpoint, and its description for those who do not know the recipe."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cluster import checkpoints
from cluster.experiment import Experiment, ExperimentError, Spaces
from cluster.run_folder import RunFolder
from cluster.standing import best
from learners.description import Description, DescriptionError
from learners.model import Model


def description_of(experiment: Experiment, spaces: Spaces, **facts: Any) -> Description:
    """A description of the experiment's policy, with its environment among the facts."""
    environment = {"id": experiment.environment.id, "kwargs": dict(experiment.environment.kwargs)}
    return Description(experiment.model, spaces.observation, spaces.action, {"environment": environment, **facts})


def policy_values(experiment: Experiment, spaces: Spaces) -> dict[str, Any] | str:
    """What `experiment.json` holds of the policy; a sentence where it cannot be described, which stops no training."""
    try:
        return json.loads(description_of(experiment, spaces).to_json())
    except (DescriptionError, TypeError) as error:
        return str(error)


def chosen(folder: RunFolder, checkpoint: str | None) -> Path:
    """The checkpoint with so many env steps, the newest, or the one that played best.

    Args:
        folder: of the run.
        checkpoint: its env steps, with or without the zeros in front; None: the newest; "best": the best.

    Raises:
        RunFolderError: there is none at all, or none was evaluated.
        ExperimentError: there is no such checkpoint; names those that there are.
    """
    newest = folder.latest()
    if checkpoint is None:
        return newest
    if checkpoint == "best":
        return best(folder)
    found = {path.name.lstrip("0") or "0": path for path in folder.checkpoints()}
    wanted = checkpoint.replace(",", "").lstrip("0") or "0"
    if wanted not in found:
        raise ExperimentError(f"{folder.path} has no checkpoint {checkpoint}: there are {', '.join(found)}")
    return found[wanted]


def trained_model(experiment: Experiment, spaces: Spaces, checkpoint: Path) -> tuple[Model, dict[str, Any]]:
    """The model of a checkpoint in float32, without the objectives' heads, and the checkpoint's values."""
    tensors, values = checkpoints.read(checkpoint)
    model = description_of(experiment, spaces).build()
    with checkpoints.fitting(checkpoint):
        weights: dict[str, np.ndarray] = {name: tensors[f"model/{name}"].numpy() for name in model.state_dict()}
        model.load_acting_weights(weights)
    return model, values
