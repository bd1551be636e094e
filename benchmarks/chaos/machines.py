"""A run over three machines that this one pretends, of which any may die, and each link may be cut."""

import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from benchmarks.chaos.living import CLASSES, WORKLOAD, say, wait_until
from benchmarks.timed import HOUSE
from cluster.condition import Condition
from tests.cluster.faults import kill_ray, matching, unplugged
from tests.cluster.machines import Machine, Machines

PORT = 6379
DOWN = 10.0
"""Seconds that Ray is away from a machine that was killed, before it is started again: as systemd would."""
SETTINGS = (
    f"PYTHONPATH={HOUSE} OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0"
)
OURS = "|".join(f"^ray::{name}" for name in CLASSES.values()) + "|contrail-env/bin/contrail"


class Cluster:
    """A run whose driver is on the first machine, with a Ray of all three; started again where it is killed.

    Args:
        machines: three of them.
        run: its name.
        flags: of `contrail train`.

    Attributes:
        run: its folder, as this machine sees it.
        log: what it printed.
    """

    def __init__(self, machines: Machines, run: str, flags: Sequence[object]) -> None:
        self._machines, self._ended = machines, Event()
        self.run, self.log = machines[0].path(f"runs/{run}"), machines[0].path(f"{run}.log")
        for machine in machines:
            self._start_ray(machine)
        folder = ["--run.folder", "~/runs", "--run.name", run, "--topology.address", "auto"]
        words = " ".join(word if word.startswith("~") else shlex.quote(word) for word in map(str, [*folder, *flags]))
        command = f"{SETTINGS} ~/contrail-env/bin/contrail train {WORKLOAD} {words}"
        self.process: subprocess.Popen[str] = machines[0].start(f"cd {HOUSE} && {command} > ~/{run}.log 2>&1")
        self._keeper = Thread(target=self._keep, daemon=True)
        self._keeper.start()

    @property
    def goes_on(self) -> bool:
        """Whether the command has not ended."""
        return self.process.poll() is None

    def pid(self, name: str) -> int | None:
        """The id, here, of a process of the run by its name, as the run last told; None: it is not there just now."""
        condition = Condition.read(self.run)
        told = [vitals for vitals in condition.processes if vitals.name == name] if condition else []
        for vitals in told[:1]:
            for machine in self._machines:
                for process in machine.processes() if machine.name == vitals.host else ():
                    if process.there == vitals.pid and process.command.startswith("ray::"):
                        return process.here
        return None

    def kill_node(self, index: int) -> bool:
        """End all of Ray on a machine at once; it is started again after a while. Whether it was there."""
        there = self._runs_ray(self._machines[index])
        kill_ray(self._machines[index])
        return there

    def cut(self, index: int, seconds: float) -> bool:
        """Pull a machine's cable out for so many seconds; whether Ray was there."""
        there = self._runs_ray(self._machines[index])
        with unplugged(self._machines[index]):
            time.sleep(seconds)
        return there

    def left(self) -> tuple[list[str], list[str]]:
        """Processes and files in shared memory of the run, on any of the machines; waits a while for both to go."""

        def found() -> tuple[list[str], list[str]]:
            processes = [process.command for machine in self._machines for process in matching(machine, OURS)]
            listed = [(machine.name, machine.run("ls /dev/shm").split()) for machine in self._machines]
            return processes, [f"{name}: {file}" for name, files in listed for file in files if "contrail" in file]

        wait_until(lambda: not any(found()), 30.0, every=1.0)
        return found()

    def end(self) -> None:
        """Let nothing of it survive."""
        self._ended.set()
        self._keeper.join()
        for machine in self._machines:
            kill_ray(machine)
        self.process.wait()

    def _keep(self) -> None:
        """Start Ray again where it was killed, or where it left because others took it for dead."""
        while not self._ended.wait(2.0):
            for machine in self._machines:
                if not self._runs_ray(machine) and not self._ended.wait(DOWN):
                    self._start_ray(machine)

    def _start_ray(self, machine: Machine) -> None:
        head, first = self._machines[0], machine is self._machines[0]
        place = f"--head --port {PORT} --include-dashboard false" if first else f"--address {head.address}:{PORT}"
        start = f"ray start {place} --node-ip-address {machine.address} --num-cpus {1 if first else 3}"
        stop = "~/contrail-env/bin/ray stop --force > /dev/null 2>&1"  # what the dead one left
        try:
            machine.run(f"cd {HOUSE}; {stop}; {SETTINGS} ~/contrail-env/bin/{start}", seconds=300)
        except AssertionError as error:  # the keeper tries again
            say(f"{machine.name}: {error}")

    @staticmethod
    def _runs_ray(machine: Machine) -> bool:
        return bool(matching(machine, "raylet/raylet "))


@contextmanager
def pretended() -> Iterator[Machines]:
    """Three machines."""
    with TemporaryDirectory(prefix="machines-", dir="/var/tmp") as folder:  # /tmp is each machine's own
        machines = Machines(Path(folder))
        try:
            yield machines
        finally:
            machines.close()
