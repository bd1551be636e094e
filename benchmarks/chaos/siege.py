"""Faults done to a run while it goes on: which and when is drawn from a seed."""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from benchmarks.chaos.living import CHANNEL, say, tell, wait_until
from cluster.metrics import read_metrics
from cluster.topology import Topology

KINDS = ("actor", "learner", "shard", "channel", "hang", "pair", "environment")
"""The first four are killed (-9). `hang`: a process stands still for some seconds and goes on. `pair`: two processes
are killed, at once or a few seconds apart. `environment`: an environment raises."""
OF_MACHINES = ("node", "link")
"""Once each where a run is over several machines. `node`: all of Ray on one of them is killed (-9). `link`: one is cut
off from the others for some seconds."""
FIRST, LAST = 0.03, 0.85
"""Shares of the run's env steps between which faults happen."""
HANGS, APART, DELAY, CUT = (2.0, 8.0), 6.0, 1.0, 20.0
"""Seconds: shortest and longest hang; at most between the two of a pair; at most after the env step of the plan; that
a machine is cut off."""
FELLOWS = ["1", "2"]
"""Numbers of the machines that the driver is not on."""
TAIL = 2**16
"""Bytes at the end of the metrics, more than a line has."""
STEPS_LATER = 4
"""Learner steps: more than actors may be ahead of learners."""
PATIENCE = 180.0
"""Seconds to wait for a process that is to be hit and is being replaced."""


@dataclass(frozen=True)
class Fault:
    """A fault that is planned.

    Attributes:
        kind: one of `KINDS` or `OF_MACHINES`.
        names: of the processes that it hits, or the number of the machine; none: an environment of any actor.
        at: share of the run's env steps.
        delay: seconds after that.
        seconds: how long it hangs or is cut off, or between the two of a pair.
    """

    kind: str
    names: tuple[str, ...]
    at: float
    delay: float
    seconds: float


@dataclass(frozen=True)
class Done:
    """A fault that happened.

    Attributes:
        kind: one of `KINDS` or `OF_MACHINES`.
        names: of the processes or the machine that it hit.
        time: when, in seconds since 1970.
        over: when the last of it was done: a hang's end, a pair's second kill.
        step: env steps of the run then, as it last told.
    """

    kind: str
    names: tuple[str, ...]
    time: float
    over: float
    step: int


@runtime_checkable
class Besieged(Protocol):
    """A run to which faults are done."""

    @property
    def run(self) -> Path:
        """Its folder."""
        ...

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended."""
        ...

    def pid(self, name: str) -> int | None:
        """The id of one of its processes; None: it is not there just now."""
        ...


@runtime_checkable
class OverMachines(Besieged, Protocol):
    """One that is over several machines."""

    def kill_node(self, index: int) -> bool:
        """End all of Ray on a machine; whether it was there."""
        ...

    def cut(self, index: int, seconds: float) -> bool:
        """Cut a machine off for so long; whether Ray was there."""
        ...


def planned(count: int, topology: Topology, *, seed: int, once: Sequence[str] = ()) -> list[Fault]:
    """Faults of all kinds in equal parts, and some once, at random moments."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation([*once, *(KINDS[number % len(KINDS)] for number in range(count - len(once)))])
    moments = np.sort(rng.uniform(FIRST, LAST, count))
    return [_fault(str(kind), float(at), topology, rng) for kind, at in zip(kinds, moments, strict=True)]


def _fault(kind: str, at: float, topology: Topology, rng: np.random.Generator) -> Fault:
    of_kind = {
        "actor": [f"actor-{index}" for index in range(topology.actors)],
        "learner": [f"learner-{rank}" for rank in range(topology.learners)],
        "shard": [f"shard-{index}" for index in range(topology.shards)],
        "channel": [CHANNEL],
        "environment": [],
        "node": FELLOWS,
        "link": FELLOWS,
    }
    processes = [name for of, group in of_kind.items() if of not in OF_MACHINES for name in group]
    names = of_kind.get(kind, processes)
    hit = rng.choice(names, 2 if kind == "pair" else 1, replace=False).tolist() if names else []
    apart = float(rng.uniform(0, APART)) if rng.random() < 0.5 else 0.0
    seconds = {"hang": float(rng.uniform(*HANGS)) if kind == "hang" else 0.0, "pair": apart, "link": CUT}.get(kind, 0.0)
    return Fault(kind, tuple(hit), at, float(rng.uniform(0, DELAY)), seconds)


def besiege(command: Besieged, plan: Sequence[Fault], *, steps: int, trap: Path) -> list[Done]:
    """Do all of a plan to a run, as far as it lasts.

    A fault may come while training stands still for another, but not for two: a process that dies three times before
    it finished anything ends a run, and rightly.

    Args:
        command: the run.
        plan: in order of time.
        steps: env steps after which the run ends.
        trap: of its environments.
    """
    done: list[Done] = []
    for fault in plan:
        wait_until(lambda at=fault.at: not command.goes_on or _steps(command.run) >= at * steps, float("inf"))
        if len(done) > 1:
            since = done[-2].over
            wait_until(
                lambda since=since: not command.goes_on or _moved_on(command.run, since), float("inf"), every=0.5
            )
        time.sleep(fault.delay)
        before = _steps(command.run)
        hit = _done(command, fault, trap)
        say(f"env step {before:,}: {fault.kind} {', '.join(fault.names)}{'' if hit else ': NOT DONE'}")
        if hit:
            done.append(Done(fault.kind, fault.names, hit[0], hit[-1], before))
    return done


def _done(command: Besieged, fault: Fault, trap: Path) -> list[float]:
    """Let it happen; when it began and was over, or nothing."""
    if fault.kind == "environment":
        return _trapped(command, trap)
    if fault.kind not in OF_MACHINES:
        return _hit(command, fault)
    assert isinstance(command, OverMachines)
    began, index = time.time(), int(fault.names[0])
    there = command.kill_node(index) if fault.kind == "node" else command.cut(index, fault.seconds)
    return [began, time.time()] if there else []


def _steps(run: Path) -> int:
    """Env steps by the last line of the metrics; 0 where there is none yet."""
    try:
        with open(run / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    whole = [line for line in lines if line.endswith(b"\n")]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def _moved_on(run: Path, since: float) -> bool:
    """Whether so many learner steps were made that every process did its part since a moment."""
    return sum(line["time"] > since for line in read_metrics(run)[-STEPS_LATER:]) == STEPS_LATER


def _trapped(command: Besieged, trap: Path) -> list[float]:
    """Let an environment raise; when it did, or nothing."""
    trap.touch()
    wait_until(lambda: not command.goes_on or not trap.exists(), PATIENCE)
    sprung = not trap.exists()
    trap.unlink(missing_ok=True)
    return [time.time()] if sprung else []


def _hit(command: Besieged, fault: Fault) -> list[float]:
    """Kill processes, or let one hang; when it began and was over, or nothing."""
    times: list[float] = []
    for number, name in enumerate(fault.names):
        if number:
            time.sleep(fault.seconds)
        if not wait_until(lambda name=name: not command.goes_on or command.pid(name) is not None, PATIENCE):
            return []
        pid = command.pid(name)
        if pid is None or not tell(pid, signal.SIGSTOP if fault.kind == "hang" else signal.SIGKILL):
            return []
        times.append(time.time())
        if fault.kind == "hang":
            time.sleep(fault.seconds)
            tell(pid, signal.SIGCONT)
            times.append(time.time())
    return times
