"""A run's numbers in trackio, a tracker that keeps them on this machine (extra `trackio`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learners.extras import needed


class TrackioWriter:
    """A run of the project "contrail"; `trackio show` shows it.

    A run there is resumed by its name, and those of two sweeps are often called the same: the identity is part of it.

    Args:
        folder: of the run, whose name it gets.
        config: what was run, by name.
        identity: behind the name.
        group: the sweep that the run is of, or none.
        resume: go on with the run of this name and identity.

    Raises:
        MissingExtra: trackio is not installed.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], *, identity: str, group: str | None, resume: bool
    ) -> None:
        self._run = self.package().init(
            project="contrail",
            name=f"{folder.name}-{identity}",
            group=group,
            config=dict(config),
            resume="allow" if resume else "never",
            embed=False,
        )

    @staticmethod
    def package() -> Any:
        """What it needs."""
        return needed("trackio", "--run.writers trackio writes with the package of that name", "trackio")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Queue numbers of one moment; a thread of trackio's writes them."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait until all is written."""
        self._run.finish()
