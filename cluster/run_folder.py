"""A run's folder: where everything that a run leaves behind is, and how it is found again."""

import difflib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.whole_file import replace_text

RUNS = Path("runs")
"""Where runs are kept unless somebody says otherwise, from the current folder."""

FOLDERS = ("events", "replay", "checkpoints", "logs")
PACKAGES = ("contrail", "torch", "ray", "gymnasium", "pyarrow", "numpy", "ale-py", "mujoco")


class RunFolderError(ValueError):
    """A run folder that cannot be made or used: says which, why, and what to do."""


class FolderTaken(RunFolderError):
    """A folder that holds something already, perhaps a run that began at this very moment."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    `experiment.json` (what runs), `metrics.jsonl` and `events/` (its numbers), `replay/` (segments), `checkpoints/`
    (one folder each, named by env steps), `logs/` (what its processes print), `faults.jsonl` (which of them died),
    `evaluations.json` (which checkpoint played best).

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, name: str | Path, *, runs: Path = RUNS) -> "RunFolder":
        """A new run's folder.

        Args:
            name: a plain name goes under `runs`; anything with a folder in it is taken as it is.
            runs: where runs are kept.

        Raises:
            FolderTaken: it exists already.
            RunFolderError: it cannot be made.
        """
        path = _path_of(name, runs)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise FolderTaken(f"{path} exists already: {_instead(path)}")
        try:
            for folder in FOLDERS:  # of two runs at once, one makes the first of them
                (path / folder).mkdir(parents=True)
        except FileExistsError as error:
            raise FolderTaken(f"{path} exists already: {_instead(path)}") from error
        except OSError as error:
            raise RunFolderError(f"{path} cannot be made ({error.strerror}): choose another folder") from error
        return cls(path)

    @classmethod
    def open(cls, name: str | Path, *, runs: Path = RUNS) -> "RunFolder":
        """The folder of a run that exists, by path or by name.

        Raises:
            RunFolderError: there is no run; names the nearest one.
        """
        for path in (Path(name), runs / name):
            if (path / "experiment.json").is_file():
                return cls(path)
        problem = (
            f"{name} is not a run: it has no experiment.json" if Path(name).is_dir() else f"there is no run {name}"
        )
        raise RunFolderError(f"{problem}; {_nearest(Path(name), runs)}")

    def save_experiment(self, values: Mapping[str, Any]) -> None:
        """Write `experiment.json`: the values, and what else one needs to run them again.

        Adds `versions`, `commit` (of the folder it is started from), `host` and `argv`. What JSON has no form for is
        saved as its `repr`. The file appears whole or not at all.
        """
        content = json.dumps({**values, **_circumstances()}, indent=1, default=repr)
        replace_text(self.path / "experiment.json", content + "\n")

    def load_experiment(self) -> dict[str, Any]:
        """What `save_experiment` wrote.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        path = self.path / "experiment.json"
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError) as error:  # also what is neither JSON nor text
            raise RunFolderError(f"{path} cannot be read ({error}): start a new run") from error
        if not isinstance(values, dict):
            raise RunFolderError(f"{path} is damaged (no object): start a new run")
        return values

    def path_for(self, step: int) -> Path:
        """Where the checkpoint of a moment goes: twelve digits, so that names sort as env steps do."""
        return self.path / "checkpoints" / f"{step:012d}"

    def check_there(self) -> None:
        """Raise a RunFolderError where the folder was removed while the run goes on, or its disk is gone."""
        if not self._there:
            raise RunFolderError(f"{self.path} is gone: somebody removed it, or its disk is not there any more")

    def refuge(self, step: int) -> Path:
        """Where the checkpoint of a moment can go even if the folder is gone."""
        gone = Path(tempfile.gettempdir(), f"contrail-{self.path.name}", f"{step:012d}")
        return self.path_for(step) if self._there else gone

    @property
    def _there(self) -> bool:
        return (self.path / "checkpoints").is_dir()

    def checkpoints(self) -> list[Path]:
        """All complete checkpoints, oldest first. Those being written bear another name."""
        return sorted(path for path in (self.path / "checkpoints").glob("*") if re.fullmatch(r"\d{12}", path.name))

    def latest(self) -> Path:
        """The newest checkpoint.

        Raises:
            RunFolderError: there is none yet.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            raise RunFolderError(f"{self.path} has no checkpoint: it ended before its first one, start a new run")
        return checkpoints[-1]

    def keep_last(self, count: int, *, besides: Collection[str] = ()) -> list[Path]:
        """Delete all checkpoints but the newest ones, at least one of which stays.

        Args:
            count: of the newest.
            besides: names of others that stay.

        Returns:
            The newest ones, oldest first: those that the run can go on from with all that it had. Others that stay are
            weights to be played; the store's journals do not go back to them.
        """
        older, newest = (found := self.checkpoints())[: -max(1, count)], found[-max(1, count) :]
        for path in older:
            if path.name not in besides:
                shutil.rmtree(path)
        return newest


def default_name(recipe: str, environment: str) -> str:
    """A name for a run, e.g. `curl_ppo-ALE-Breakout-v5-20260131-235959` (local time), safe as a folder's."""
    name = f"{recipe}-{environment}-{time.strftime('%Y%m%d-%H%M%S')}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")


def _path_of(name: str | Path, runs: Path) -> Path:
    path = Path(name)
    return path if len(path.parts) > 1 or path.is_absolute() else runs / path


def _instead(path: Path) -> str:
    """What to do about a folder that exists."""
    if RunFolder(path).checkpoints():
        return f'choose another name, or continue this run with "contrail resume {path}"'
    return "choose another name, or remove it"


def _nearest(wanted: Path, runs: Path) -> str:
    """Which run was meant, perhaps."""
    folder = wanted.parent if len(wanted.parts) > 1 and wanted.parent.is_dir() else runs
    known = sorted(path.parent.name for path in folder.glob("*/experiment.json"))
    if not known:
        return f"{folder} holds none, start one with contrail train"
    nearest = difflib.get_close_matches(wanted.name, known, n=1, cutoff=0.5)
    return f"did you mean {folder / nearest[0]}?" if nearest else f"the newest in {folder} is {_newest(folder)}"


def _newest(folder: Path) -> str:
    return max(folder.glob("*/experiment.json"), key=lambda path: path.stat().st_mtime).parent.name


def _circumstances() -> dict[str, Any]:
    """With what, on what and how this process was started."""
    return {
        "versions": {"python": platform.python_version()} | _package_versions(),
        "commit": git_commit(Path.cwd()),
        "host": {"name": platform.node(), "system": platform.platform(), "cores": os.cpu_count()},
        "argv": sys.argv,
    }


def _package_versions() -> dict[str, str]:
    return {name: found.version for name in PACKAGES for found in metadata.distributions(name=name)}


def git_commit(folder: Path) -> str | None:
    """The commit that a folder is at, with "+changes" if files differ from it; None: no git, or no commit."""
    if shutil.which("git") is None:
        return None
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command; None where it fails, e.g. outside a repository."""
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
