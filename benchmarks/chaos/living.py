"""The processes of a run, as the kernel has them; nobody else's are touched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.timed import CONTRAIL, HOUSE
from cluster.condition import Condition

CLASSES = {"actor": "ActorProcess", "learner": "LearnerProcess", "shard": "ShardProcess", "channel": "ChannelServer"}
"""By kind, what Ray calls a process: `ray::ActorProcess.collect`."""
CHANNEL = "the weight channel"
WORKLOAD = "benchmarks/chaos/workload.py:workload"


@dataclass(frozen=True)
class Command:
    """A command that runs in a session of its own, as does all that it starts.

    Attributes:
        process: of the command.
        run: folder of its run.
        seen: ids of all processes of the session so far.
    """

    process: subprocess.Popen[bytes]
    run: Path
    seen: set[int] = field(default_factory=set)

    @classmethod
    def begin(cls, arguments: Sequence[object], run: Path) -> "Command":
        """Start `contrail` with these arguments; what it says goes to RUN.log."""
        run.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(f"{run}.log", "ab") as log:
            command = [*CONTRAIL, *map(str, arguments)]
            process = subprocess.Popen(
                command, cwd=HOUSE, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            return cls(process, run)

    @property
    def goes_on(self) -> bool:
        """Whether the command has not ended."""
        return self.process.poll() is None

    def living(self) -> dict[int, str]:
        """Processes of the session that are not zombies, and their names."""
        found = session(self.process.pid)
        self.seen.update(found)
        return found

    def pid(self, name: str) -> int | None:
        """The id of a process of the run by its name, as the run last told; None: it is not there just now."""
        condition = Condition.read(self.run)
        told = [vitals.pid for vitals in condition.processes if vitals.name == name] if condition else []
        kind = "channel" if name == CHANNEL else name.partition("-")[0]
        if not told or told[0] not in self.living():
            return None
        return told[0] if title(told[0]).startswith(f"ray::{CLASSES[kind]}") else None

    def kill_all(self) -> None:
        """End everything at once, without a word: the driver first, or it would hear of the others."""
        os.kill(self.process.pid, signal.SIGKILL)
        while left := self.living():
            for pid in left:
                tell(pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Let nothing of it survive whoever started it."""
        if self.goes_on or self.living():
            self.kill_all()


def begin_training(run: Path, *flags: object) -> Command:
    """Start a run of the workload."""
    return Command.begin(["train", WORKLOAD, "--run.folder", run.parent, "--run.name", run.name, *flags], run)


def session(leader: int) -> dict[int, str]:
    """All processes of a session that are not zombies, and their names."""
    pids = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            start, _, rest = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields, name = rest.split(), start.partition("(")[2]
        if int(fields[3]) == leader and fields[0] != "Z":
            pids[int(stat.parent.name)] = name
    return pids


def title(pid: int) -> str:
    """What a process calls itself; empty: it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def tell(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether the process was there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def wait_until(true: Callable[[], bool], seconds: float, *, every: float = 0.05) -> bool:
    """Wait for something to become true, looking every so many seconds; whether it did in this time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def say(text: str) -> None:
    """Tell whoever waits for a long measurement."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
