"""The folder of a measurement of scaling: what is measured, a folder for each run, and how far it is."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.run_folder import RUNS, FolderTaken, RunFolderError
from cluster.scale_options import ScaleOptions
from cluster.scale_plan import Plan, Point, Series
from cluster.sweep_grid import changed
from cluster.whole_file import replace_text

FILE, MEASURED = "plan.json", "measured.json"
FREE = ("actors", "envs", "envs_per_actor", "learners", "repeats", "patience", "name", "compare")
"""Options that may differ where a measurement goes on: runs that were measured stay what they are."""


@dataclass(frozen=True)
class ScaleFolder:
    """`plan.json` (what is measured), a folder for each run, what they print, and the results.

    Attributes:
        path: the folder.
        recipe: of all runs.
        flags: of all runs.
        folder: where runs are started in: recipes' files may be given from there.
        plan: what is run.
        options: how.
    """

    path: Path
    recipe: str
    flags: Sequence[str]
    folder: Path
    plan: Plan
    options: ScaleOptions

    def save(self) -> None:
        """Write `plan.json`, or its new version, in one go."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "recipe": self.recipe,
            "flags": list(self.flags),
            "folder": str(self.folder),
            "options": asdict(self.options),
            "plan": asdict(self.plan),
        }
        replace_text(self.path / FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def open(cls, name: Path) -> "ScaleFolder":
        """A measurement that was begun earlier, by path or by name.

        Raises:
            RunFolderError: there is none, or its description is damaged.
        """
        path = next((path for path in (name, RUNS / name, RUNS / f"scale-{name}") if (path / FILE).is_file()), None)
        if path is None:
            raise RunFolderError(
                f"{name} is no measurement of scaling: it has no {FILE}; start one with contrail scale RECIPE"
            )
        try:
            found = json.loads((path / FILE).read_text())
            options: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in found["options"].items()
            }
            plan = Plan(
                [Point(**point) for point in found["plan"]["points"]],
                [Series(**series) for series in found["plan"]["series"]],
                found["plan"]["seed"],
            )
            folder = Path(found["folder"])
            return cls(path.resolve(), found["recipe"], found["flags"], folder, plan, ScaleOptions(**options))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path / FILE} is damaged ({error}): start a new measurement") from error

    def check_goes_on(self) -> None:
        """Look whether what is in the folder already was measured in the same way, and stays part of the results.

        Raises:
            FolderTaken: it holds something else, or something more.
        """
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not (self.path / FILE).is_file():
            raise FolderTaken(f"{self.path} exists already and is no measurement of scaling: choose another --name")
        before = ScaleFolder.open(self.path)
        if differs := _difference(before.manner, self.manner):
            raise FolderTaken(
                f"{self.path} was measured with {differs}: choose another --name, or continue that one with "
                f'"contrail scale --resume {self.path}"'
            )
        if lost := self._lost(before):
            raise FolderTaken(
                f"{self.path} has a measurement of {lost}, which would be left out: give all numbers and repeats that "
                "were measured, and more if you like, or choose another --name"
            )

    def _lost(self, before: "ScaleFolder") -> str:
        """The first run that was measured and is no longer part of the plan; empty: all are."""
        names = {point.name for point in self.plan.points}
        return next(
            (
                f"{point.name}, repeat {repeat + 1}"
                for repeat in range(before.options.repeats)
                for point in before.plan.points
                if before.error(point, repeat) == "" and (point.name not in names or repeat >= self.options.repeats)
            ),
            "",
        )

    @property
    def manner(self) -> dict[str, Any]:
        """What must be the same for runs to be compared."""
        options = {name: value for name, value in asdict(self.options).items() if name not in FREE}
        return {"recipe": self.recipe, "flags": list(self.flags)} | options

    def run(self, point: Point, repeat: int) -> Path:
        """The folder of a run."""
        return self.path / point.name / f"repeat-{repeat + 1}"

    def output(self, point: Point, repeat: int) -> Path:
        """What a run prints."""
        return self.path / "output" / f"{point.name},repeat-{repeat + 1}.log"

    def arguments(self, point: Point, repeat: int) -> list[str]:
        """Flags of a run; what a start that was not measured left behind is removed."""
        run = self.run(point, repeat)
        shutil.rmtree(run, ignore_errors=True)
        seed = {} if self.plan.seed is None else {"seed": self.plan.seed + repeat}
        until = ["--run.until", str(self.options.steps)] if self.options.steps else []
        return [*changed(point.arguments, seed), "--run.name", str(run), *until]

    def error(self, point: Point, repeat: int) -> str | None:
        """What went wrong with a run that has ended, "" for nothing; None: it is still to be measured."""
        try:
            return str(json.loads((self.run(point, repeat) / MEASURED).read_text())["error"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def ended(self, point: Point, repeat: int, error: str) -> None:
        """A run has ended as it was to, or with an error."""
        run = self.run(point, repeat)
        run.mkdir(parents=True, exist_ok=True)
        replace_text(run / MEASURED, json.dumps({"error": error}) + "\n")


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first thing that was another; empty: nothing was."""
    return next((f"{name} {value}" for name, value in before.items() if value != now[name]), "")
