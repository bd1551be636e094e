"""The command line as tests call it: in this process where that will do, in one of its own where it must end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.chaos.living import session
from cluster import cli
from cluster.kept import OWNER, PREFIX, SHARED_MEMORY

HOUSE = Path(__file__).resolve().parents[2]
SMALL = ["--topology.local", "--envs", "4", "--rows", "16", "--epochs", "1"]
FAULTY = "tests.cluster.faulty"


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code, what it printed, what it complained of."""

    code: int
    out: str
    error: str

    @property
    def sentence(self) -> str:
        """The one line that says what went wrong."""
        assert "Traceback" not in self.out + self.error
        first, *notes = self.error.strip().splitlines()
        assert first.startswith("contrail: ")
        assert all(re.match(r"  (continue with|traceback|what came after|\S+ ended)", note) for note in notes), notes
        return first


class Contrail:
    """Calls commands in one folder."""

    def __init__(self, runs: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.runs, self.capture = runs, capture

    def __call__(self, *arguments: object) -> Outcome:
        self.capture.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        out, error = self.capture.readouterr()
        return Outcome(code, out, error)

    def train(self, recipe: str, *flags: object, name: str = "run") -> Outcome:
        """A small run in this process."""
        return self("train", recipe, *SMALL, "--run.folder", self.runs, "--run.name", name, *flags)


def segments_folders(run: Path) -> list[Path]:
    """What a run left in shared memory. Another test's may bear the same name, and be about to say whose it is."""
    mine = str((run / "replay" / "log").resolve())
    found = list(SHARED_MEMORY.glob(f"*{PREFIX}{run.name}-*"))
    if not all(owner_of(folder) for folder in found):
        time.sleep(0.5)
    return [folder for folder in found if folder.exists() and owner_of(folder) in ("", mine)]


def owner_of(folder: Path) -> str:
    """The log of the run that has its live segments there; "": it does not say so."""
    try:
        return json.loads((folder / OWNER).read_text())["log"]
    except (FileNotFoundError, ValueError):
        return ""


def start(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """A command in a process and session of its own, called in a folder, its output piped."""
    program = "from cluster.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], *, but: tuple[str, ...] = ()) -> Outcome:
    """Wait for a command; nothing of its session may be left then, but processes of these names."""
    process.wait(120)
    wait_until(lambda: set(session(process.pid).values()) <= set(but), "the command's processes have ended")
    end(process)  # or those that are left would keep the pipes open
    out, error = process.communicate(timeout=10)
    return Outcome(process.returncode, out, error)


def wait_until(true, what: str, *, seconds: float = 120.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s, but not: {what}"
        time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> None:
    """Let nothing survive a failed test: end the session that the test started."""
    for pid in session(process.pid):
        os.kill(pid, signal.SIGKILL)
