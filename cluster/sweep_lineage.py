"""What has become of the members of a population: `population.json` in the folder of a sweep."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.run_folder import RunFolderError
from cluster.sweep_folder import Setting
from cluster.whole_file import replace_text

FILE = "population.json"


@dataclass(frozen=True)
class TakeOver:
    """One run went on from another's checkpoint.

    Attributes:
        run: the one that did worse.
        source: the other.
        steps: env steps of the checkpoint.
        value: the run's return at that look; None: it had none, or had failed.
        source_value: the other's.
        before: the settings of the other, seed aside.
        after: those of the run from then on.
    """

    run: str
    source: str
    steps: int
    value: float | None
    source_value: float
    before: dict[str, Setting]
    after: dict[str, Setting]

    @property
    def changes(self) -> str:
        """The settings from then on: those of the other, and what was made of them."""
        return ", ".join(
            f"{name} {_short(self.before[name])}" + (f" -> {_short(value)}" if value != self.before[name] else "")
            for name, value in self.after.items()
        )

    def __str__(self) -> str:
        return f"{self.run} takes over from {self.source} at {self.steps:,} env steps: {self.changes}"


@dataclass(frozen=True)
class Lineage:
    """A population as it is.

    Attributes:
        until: env steps of the next look.
        settings: of every run now, seed aside.
        taken: all that was decided, oldest first.
        applied: how many of them were carried out.
        since: the most env steps that a run had at the look before: returns of later steps belong to this one.
    """

    until: int
    settings: dict[str, dict[str, Setting]]
    taken: Sequence[TakeOver] = ()
    applied: int = 0
    since: int = 0

    @classmethod
    def read(cls, folder: Path) -> "Lineage | None":
        """That of a sweep; None: it is no population.

        Raises:
            RunFolderError: the file is damaged.
        """
        try:
            found = json.loads((folder / FILE).read_text())
            return cls(**{**found, "taken": [TakeOver(**take) for take in found["taken"]]})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{folder / FILE} is damaged ({error}): start a new sweep") from error

    def write(self, folder: Path) -> None:
        """Replace the last version in one go."""
        replace_text(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")


def _short(value: Setting) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
