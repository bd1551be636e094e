"""The folder of a sweep: which runs belong to it, and how each of them is, as its own folder tells."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.condition import UNTIL, Condition
from cluster.lock import held
from cluster.logs import last_words
from cluster.run_folder import RUNS, FolderTaken, RunFolder, RunFolderError
from cluster.whole_file import replace_text

FILE, STOPPING, VERDICT = "sweep.json", "stopping", "stopped.json"

Setting = bool | int | float | str


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes:
        name: what differs from the others, "lr=0.0003,seed=1"; its folder's name.
        arguments: flags of `contrail train RECIPE`, without those that say where the run is kept.
        settings: the values that differ, by flag, "lr" or "topology.max-version-lag", in the order of the flags.
        steps: env steps after which it ends.
    """

    name: str
    arguments: Sequence[str]
    settings: dict[str, Setting]
    steps: int


@dataclass(frozen=True)
class SweepFolder:
    """`sweep.json` (what it consists of), a folder for each run, what they print, and the results.

    Attributes:
        path: the folder.
        recipe: of all runs.
        folder: where commands are called in: recipes' files and stores may be given from there.
        runs: all of them.
    """

    path: Path
    recipe: str
    folder: Path
    runs: Sequence[Planned]

    def save(self, options: dict[str, Any]) -> None:
        """Write `sweep.json`, or its new version, in one go."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {"recipe": self.recipe, "folder": str(self.folder), "options": options}
        text = json.dumps(content | {"runs": [asdict(run) for run in self.runs]}, indent=1) + "\n"
        replace_text(self.path / FILE, text)

    @classmethod
    def open(cls, name: Path) -> tuple["SweepFolder", dict[str, Any]]:
        """A sweep that exists, by path or by name, and its options.

        Raises:
            RunFolderError: there is none, or its description is damaged.
        """
        path = next((path for path in (name, RUNS / name) if (path / FILE).is_file()), None)
        if path is None:
            raise RunFolderError(f"{name} is no sweep: it has no {FILE}; start one with contrail sweep RECIPE")
        try:
            found = json.loads((path / FILE).read_text())
            runs = [Planned(**run) for run in found["runs"]]
            return cls(path.resolve(), found["recipe"], Path(found["folder"]), runs), found["options"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{path / FILE} is damaged ({error}): start a new sweep") from error

    def check_goes_on(self) -> None:
        """Look whether what is in the folder already is this sweep, or a part of it.

        Raises:
            FolderTaken: it holds something else.
        """
        if not self.path.exists() or not any(self.path.iterdir()):
            return
        if not (self.path / FILE).is_file():
            raise FolderTaken(f"{self.path} exists already and is no sweep: choose another --sweep.name")
        before, _ = SweepFolder.open(self.path)
        now = {run.name: list(run.arguments) for run in self.runs}
        other = [run.name for run in before.runs if now.get(run.name) != list(run.arguments)]
        if before.recipe != self.recipe or other:
            what = f"the run {other[0]} with other flags" if other else f"runs of {before.recipe}"
            raise FolderTaken(
                f"{self.path} is another sweep, it has {what}: choose another --sweep.name, or continue that one with "
                f'"contrail sweep --resume {self.path}"'
            )

    def output(self, run: str) -> Path:
        """What a run's commands print."""
        return self.path / "output" / f"{run}.log"

    def command(self, run: Planned, until: int = 0) -> list[str]:
        """What trains a run, or goes on with it; what a start without a checkpoint left behind is removed.

        Args:
            run: which.
            until: env steps at which a new run stops; 0: its end. One that goes on has that among its arguments.
        """
        path = self.path / run.name
        if RunFolder(path).checkpoints():
            return ["resume", str(path)]
        if path.exists():
            shutil.rmtree(path)
        stops = [UNTIL, str(until)] if until else []
        return ["train", self.recipe, *run.arguments, "--run.name", str(path), *stops]

    @property
    def stopping(self) -> bool:
        """Whether all runs are asked to stop."""
        return (self.path / STOPPING).exists()

    def ask_to_stop(self) -> None:
        """Ask all runs to stop."""
        (self.path / STOPPING).touch()

    def begin(self) -> None:
        """Nobody is asked to stop any more."""
        (self.path / STOPPING).unlink(missing_ok=True)


def stop_run(run: Path, by: str, steps: int) -> None:
    """Ask one run to stop for good, and keep at how many env steps and by whom that was decided."""
    replace_text(run / VERDICT, json.dumps({"by": by, "steps": steps, "time": time.time()}) + "\n")


def verdict(run: Path) -> str:
    """Who stopped a run for good and when; empty: nobody."""
    try:
        found = json.loads((run / VERDICT).read_text())
        return f"stopped at {found['steps']:,} steps by {found['by']}"
    except FileNotFoundError:
        return ""


def locked(run: Path) -> bool:
    """Whether a process trains the run at this moment."""
    return run.is_dir() and held(run)


def state(sweep: SweepFolder, run: str) -> str:
    """How a run is, in a few words; those that begin with "failed" end with its first error."""
    path = sweep.path / run
    condition = Condition.read(path)
    if condition is None:  # it was not started, is just being started, or could not be
        said = [line for line in last_words(sweep.output(run), 20) if line.startswith("contrail: ")]
        return f"failed: {said[0].removeprefix('contrail: ')}" if said else "waiting"
    if condition.alive(path):
        return condition.phase
    if condition.phase == "finished":
        return "finished"
    if by := verdict(path):
        return by
    if condition.phase == "failed":
        return f"failed: {condition.why}"
    if condition.phase == "stopped":
        return "paused" if condition.why.startswith(f"at {UNTIL}") else "stopped"
    return "died"


def settled(sweep: SweepFolder, run: str) -> bool:
    """Whether a run needs nothing any more: it came to its end, or was stopped for good."""
    return state(sweep, run) == "finished" or bool(verdict(sweep.path / run))
