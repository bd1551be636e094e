"""A run's numbers in Weights & Biases (extra `wandb`)."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learners.extras import needed


class WandbWriter:
    """A run there, of the same name; WANDB_PROJECT, WANDB_MODE and all its other variables count.

    The x-axis is the metric `env_steps` and not its own step, which cannot go back as a run does that was killed after
    its last checkpoint: those stretches are there twice.

    Args:
        folder: of the run; it holds wandb's own files, too.
        config: what was run, by name.
        identity: by which a later start goes on with the same run.
        group: the sweep that the run is of, or none.
        resume: whether this is such a later start.

    Raises:
        MissingExtra: wandb is not installed.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, identity: str, group: str | None, resume: bool
    ) -> None:
        wandb = self.package()
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "contrail"),
            name=folder.name,
            id=identity,
            group=group,
            resume="allow" if resume else None,
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(console="off", quiet=True),  # it would take over the display's terminal
        )
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")

    @staticmethod
    def package() -> Any:
        """What it needs."""
        return needed("wandb", "--run.writers wandb writes with the package of that name", "wandb")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Queue numbers of one moment; a process of wandb's own sends them."""
        self._run.log({"env_steps": step, **values})

    def close(self) -> None:
        """Wait until all is sent, or on disk where wandb is offline."""
        self._run.finish()
