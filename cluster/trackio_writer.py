"""A run's numbers in trackio, a tracker that keeps them on this machine (extra `trackio`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learners.extras import needed


class TrackioWriter:
    """A run of the project "contrail"; `trackio show` shows it.

    Args:
        folder: of the run, whose name it gets.
        config: what was run, by name.
        resume: go on with the newest run of this name.

    Raises:
        MissingExtra: trackio is not installed.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, resume: bool) -> None:
        self._run = self.package().init(
            project="contrail",
            name=folder.name,
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
