"""What may happen to pretend machines that run Ray, and how it is started again. The real machine is not touched."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from cluster.condition import Condition
from tests.cluster.commands import wait_until
from tests.cluster.machines import Machine, Machines, Process

SYSTEM = r"^bash .*boot\.sh |^sshd: "
"""What a machine is without Ray."""


def matching(machine: Machine, pattern: str) -> list[Process]:
    """Processes of a machine by their command line, e.g. "raylet", "gcs_server" or "^ray::LearnerProcess"."""
    return [process for process in machine.processes() if re.search(pattern, process.command)]


def left(machine: Machine) -> list[Process]:
    """Processes of a machine that it would not have without Ray."""
    return [process for process in machine.processes() if not re.search(SYSTEM, process.command)]


def kill(machine: Machine, pattern: str, number: signal.Signals = signal.SIGKILL) -> list[Process]:
    """Send a signal (SIGSTOP makes one hang) to all of a machine that match; there must be one."""
    found = matching(machine, pattern)
    assert found, f"nothing like {pattern!r} on {machine.name}: {[process.command for process in machine.processes()]}"
    machine.send(number, found)
    return found


def kill_process(machines: Machines, run: Path, name: str, number: signal.Signals = signal.SIGKILL) -> Process:
    """Send a signal to a process of a run, e.g. "actor-1", wherever it is; the run says where.

    Args:
        machines: that the run is on.
        run: its folder, as this machine sees it (Machine.path).
        name: of the process.
        number: the signal.
    """
    condition = Condition.read(run)
    assert condition is not None, f"no run in {run}"
    (told,) = [process for process in condition.processes if process.name == name]
    (machine,) = [machine for machine in machines if machine.name == told.host]
    (process,) = [process for process in machine.processes() if process.there == told.pid]
    machine.send(number, [process])
    return process


def kill_ray(machine: Machine) -> None:
    """Kill all of Ray on a machine, and all else but its sshd: also what starts while the rest is killed."""

    def dead() -> bool:
        machine.send(signal.SIGKILL, rest := left(machine))
        return not rest

    wait_until(dead, f"Ray on {machine.name} is dead")


@contextmanager
def unplugged(machine: Machine) -> Iterator[None]:
    """A machine whose cable is pulled out meanwhile."""
    machine.link("down")
    try:
        yield
    finally:
        machine.link("up")


def start_ray(machine: Machine, file: Path, head: Machine) -> None:
    """Start Ray on a machine again, with the commands of a file for `ray up`.

    How they end is not looked at: after half a minute the head's autoscaler does the same, and one stops the other's
    Ray. What counts is whether the node joins.
    """
    values = yaml.safe_load(file.read_text())
    commands = values["head_start_ray_commands" if machine is head else "worker_start_ray_commands"]
    for command in commands:
        machine.attempt(f"export RAY_HEAD_IP={head.address}; {command}", seconds=400)
