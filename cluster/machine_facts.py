"""Facts of one machine, as plain values: what `contrail doctor` asks of every node of a cluster."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

PACKAGES = ("contrail", "ray", "torch", "numpy", "pyarrow", "gymnasium")
"""Those whose versions should be alike on all nodes: they write what others read."""

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What one machine says of itself.

    Attributes:
        name: its host name.
        versions: of Python and of `PACKAGES`, those that are there.
        shared_memory: size of /dev/shm, and what is free of it, in bytes.
        disk: what is free, in bytes, where runs and Ray's own files go: by folder.
        gpus: cards that the driver knows, and those that torch can use.
    """

    name: str
    versions: dict[str, str]
    shared_memory: tuple[int, int]
    disk: dict[str, int]
    gpus: tuple[int, int]

    @classmethod
    def this(cls, *, shared_memory: Path = Path("/dev/shm")) -> "Machine":
        """The machine that this is called on."""
        usage = shutil.disk_usage(shared_memory)
        folders = {str(Path.home()), os.environ.get("RAY_TMPDIR", "/tmp")}
        return cls(
            name=socket.gethostname(),
            versions={"python": python_version()} | _installed(),
            shared_memory=(usage.total, usage.free),
            disk={folder: shutil.disk_usage(folder).free for folder in sorted(folders)},
            gpus=_gpus(),
        )


def _installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # its absence is a fact, too
            continue
    return found


def _gpus(cards: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[int, int]:
    """Cards that the driver knows, and those that torch can use, counted where nobody hides them."""
    known = len(list(cards.iterdir())) if cards.is_dir() else 0
    if not known:
        return 0, 0
    # Ray hides the cards from a process that asked for none, and CUDA looks only once.
    program = "import torch; print(torch.cuda.device_count())"
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return known, int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def resolved(name: str) -> str:
    """The address that this machine has for a host name; empty if it has none."""
    try:
        return socket.gethostbyname(name)
    except OSError:
        return ""
