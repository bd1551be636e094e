"""The virtual environments of peers: other systems want other versions than we do."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PEERS = Path.home() / ".cache" / "contrail" / "peers"
TORCH = "torch==2.13.0"
Peer = Literal["sb3", "rllib", "torchrl", "tianshou", "cleanrl"]
_TASKS = ("ale-py", "gymnasium[mujoco]", "minigrid", "mujoco", "opencv-python-headless")


@dataclass(frozen=True)
class Installed:
    """What a peer's virtual environment has.

    Attributes:
        folder: its name.
        packages: that pip resolves together.
        alone: packages that come without what they ask for, be it another Python.
    """

    folder: str
    packages: Sequence[str]
    alone: Sequence[str] = ()


INSTALLED: Mapping[Peer, Installed] = {
    "sb3": Installed("sb3-methods", ("stable-baselines3", "sb3-contrib", *_TASKS)),
    "rllib": Installed("rllib", ("ray[rllib]==2.60.*", *_TASKS)),
    "torchrl": Installed("torchrl", ("torchrl==0.14.*", *_TASKS)),
    "tianshou": Installed("tianshou", ("tianshou==2.0.1", *_TASKS)),
    # Its scripts want Python below 3.11 by name only, and gym from before numpy 2 and setuptools 81.
    "cleanrl": Installed(
        "cleanrl", ("gym==0.23.1", "pygame", "numpy<2", "setuptools<81", "tensorboard<3"), alone=("cleanrl==1.2.0",)
    ),
}


def interpreter(peer: Peer, folder: Path) -> Path:
    """The Python of a peer, with all that its tasks want, in a virtual environment under a folder."""
    installed = INSTALLED[peer]
    return prepare_peer(folder.resolve(), installed.folder, installed.packages, installed.alone)


def prepare_peer(folder: Path, name: str, packages: Sequence[str], alone: Sequence[str] = ()) -> Path:
    """The interpreter of a peer's virtual environment, which is made the first time (a minute or two)."""
    environment, ready = folder / name, folder / name / "ready"
    python = environment / "bin" / "python"
    if not ready.exists():
        print(f"setting up {environment} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        # The very version of torch first: a later requirement then accepts it instead of fetching a CUDA build.
        orders = [[TORCH], [TORCH, *packages]]
        if alone:
            orders.append(["--no-deps", "--ignore-requires-python", *alone])
        for wanted in orders:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        ready.touch()
    return python
