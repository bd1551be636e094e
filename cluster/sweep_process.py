"""The processes of a sweep's runs: ordinary `contrail train` and `contrail resume`, which end in order if we die."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster import cli

PROGRAM = "from cluster.sweep_process import main; main()"
PR_SET_PDEATHSIG = 1


def start(
    arguments: Sequence[str], *, folder: Path, output: Path, driver: int, gpus: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own.

    It has the environment of the sweep's start: Ray adds to that of its processes, numbers of threads and cards, too.

    Args:
        arguments: of `contrail`.
        folder: it is called in.
        output: file for what it prints, that of an earlier start forgotten.
        driver: the sweep's process, on this machine.
        gpus: Ray says which it sees.
    """
    given = Path(f"/proc/{driver}/environ").read_bytes().split(b"\0")
    environment = dict(os.fsdecode(entry).partition("=")[::2] for entry in given if entry)
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"]
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "wb") as file:
        return subprocess.Popen(
            # -P: what lies in the folder must not take the place of our modules
            [sys.executable, "-P", "-c", PROGRAM, str(os.getpid()), *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the sweep's to pass on
        )


def main() -> None:
    """`contrail`, asked to stop when the process that started it dies, however it does."""
    parent, *arguments = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # Ray's processes block some
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before this was set
        sys.exit(128 + signal.SIGTERM)
    sys.argv = ["contrail", *arguments]
    cli.main()
