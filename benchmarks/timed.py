"""A command run to its end, with the seconds that it took of the clock and of the processor."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
CONTRAIL = (sys.executable, "-c", "from cluster.cli import main; main()")
"""The command `contrail`, wherever it is installed."""


@dataclass(frozen=True)
class Timed:
    """What it took and what it printed.

    Attributes:
        wall: seconds from its start to its end, which other processes of the machine lengthen.
        cpu: processor seconds of it and of its children.
        output: what it wrote to its standard output.
    """

    wall: float
    cpu: float
    output: str


def timed(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Timed:
    """Run a command at the project's root, in one thread.

    Args:
        command: program and arguments.
        environment: variables beside the present ones.

    Raises:
        SystemExit: it failed; says how it ended.
    """
    told = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.time()
        process = subprocess.Popen(command, cwd=HOUSE, stdout=output, stderr=errors, env=told)
        # Popen's own wait does not tell the child's processor time.
        _, status, used = os.wait4(process.pid, 0)
        wall = time.time() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            said = errors.read()[-3000:]
            raise SystemExit(f"{' '.join(map(str, command))} failed ({process.returncode}):\n{said}")
        return Timed(round(wall, 1), round(used.ru_utime + used.ru_stime, 1), output.read())


def family(pid: int) -> list[int]:
    """A process and all that descend from it and still live."""
    found = [pid]
    for one in found:
        with suppress(OSError):  # it has ended
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process and of all that descend from it and still live."""
    ticks = 0
    for one in family(pid):
        with suppress(OSError):  # it has ended
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
