"""What is measured: the command of each system, and the virtual environments that the peers live in."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent.parent
PEERS = "benchmarks.replay.peers"

# Each list is one `pip install`, in order. The very version of torch first: TorchRL then accepts it instead of fetching
# a CUDA build.
ENVIRONMENTS = {
    "cpprb": (["cpprb==11.0.0", "numpy<2"],),
    "torchrl": (["torch==2.13.0"], ["torchrl==0.14.1", "ninja", "setuptools"]),
    "reverb": (["dm-reverb==0.14.0", "tensorflow-cpu==2.14.*", "numpy<2"],),
}
AFTERWARDS = {"torchrl": ["-m", f"{PEERS}.build_torchrl"]}


@dataclass(frozen=True)
class System:
    """Something that is measured.

    Args:
        module: that is run.
        environment: virtual environment that it needs; "" is the one that runs this.
        flags: beside those of the case.
    """

    module: str
    environment: str = ""
    flags: tuple[str, ...] = ()

    def command(self, folder: Path) -> list[str | Path]:
        """The command line without the case's flags; environments lie in the folder."""
        python = folder / self.environment / "bin" / "python" if self.environment else sys.executable
        return [python, "-m", self.module, *self.flags]


OURS = "ours"
SYSTEMS = {
    OURS: System("benchmarks.replay.ours"),
    "numpy": System(f"{PEERS}.numpy_gather"),
    "cpprb": System(f"{PEERS}.cpprb_buffer", "cpprb"),
    "torchrl": System(f"{PEERS}.torchrl_buffer", "torchrl"),
    "torchrl, 1 thread": System(f"{PEERS}.torchrl_buffer", "torchrl", ("--threads", "1")),
    "reverb": System(f"{PEERS}.reverb_table", "reverb"),
    "reverb, server inside": System(f"{PEERS}.reverb_table", "reverb", ("--server", "inside")),
    "reverb, structured writer": System(f"{PEERS}.reverb_table", "reverb", ("--writer", "structured")),
}


def variables(system: System, folder: Path) -> dict[str, str]:
    """The environment variables of a system's process: its own programs (ninja) are found first."""
    path = f"{folder / system.environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return dict(os.environ) | ({"PATH": path} if system.environment else {})


def prepare(environment: str, folder: Path) -> None:
    """Make a virtual environment the first time (minutes; TorchRL's needs g++)."""
    place = folder / environment
    if not environment or (place / "ready").exists():
        return
    print(f"setting up {place} ...", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    python = place / "bin" / "python"
    for packages in ENVIRONMENTS[environment]:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    if environment in AFTERWARDS:
        system = next(system for system in SYSTEMS.values() if system.environment == environment)
        subprocess.run([python, *AFTERWARDS[environment]], check=True, cwd=HOUSE, env=variables(system, folder))
    (place / "ready").touch()


def recording(folder: Path, *, rows: int) -> Path:
    """The folder of a recording of ALE Breakout of at least some rows, which is made the first time."""
    place = folder / f"breakout-{rows}"
    if not (place / "ready").exists():
        print(f"recording {rows} rows of Breakout ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.replay.record", place, "--rows", str(rows)]
        subprocess.run(command, check=True, cwd=HOUSE)
        (place / "ready").touch()
    return place
