"""The virtual environment of a peer: other systems want other versions than we do."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PEERS = Path.home() / ".cache" / "contrail" / "peers"
SB3_PACKAGES = [
    "stable-baselines3",
    "sb3-contrib",
    "ale-py",
    "gymnasium[mujoco]",
    "minigrid",
    "mujoco",
    "opencv-python-headless",
]


def sb3(folder: Path) -> Path:
    """The interpreter of Stable-Baselines3 and sb3-contrib, with all that their tasks want."""
    return prepare_peer(folder.resolve(), "sb3-methods", SB3_PACKAGES)


def prepare_peer(folder: Path, name: str, packages: Sequence[str]) -> Path:
    """The interpreter of a peer's virtual environment, which is made the first time (a minute or two)."""
    environment, ready = folder / name, folder / name / "ready"
    python = environment / "bin" / "python"
    if not ready.exists():
        print(f"setting up {environment} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        # The very version of torch first: a later requirement then accepts it instead of fetching a CUDA build.
        for wanted in (["torch==2.13.0"], packages):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        ready.touch()
    return python
