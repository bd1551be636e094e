"""Short runs that are watched, from which a plan learns what the parts of a run cost."""

import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import ray

from cluster.distributed import Distributed
from cluster.embedded import end_ray, start_ray
from cluster.experiment import Experiment, Spaces
from cluster.metrics import Metrics
from cluster.plan_costs import Costs, Seen, fitted
from cluster.plan_design import layout
from cluster.plan_stages import spread, stage_seconds
from cluster.roster import CHANNEL
from cluster.segments_folder import bytes_wanted, segments_folder
from cluster.statistics import Statistics
from cluster.weights import ChannelServer
from replay.opening import Places
from replay.remote import Receiver, Sender, Trajectory
from replay.schema import Schema
from replay.shard import Shard

Lay = Callable[[int, int, int], Experiment]
"""An experiment with so many actors, environments of each, and learners."""

WARM_UP_SECONDS, WARM_UP_STEPS = 2.0, 4
LEAST_STEPS = 5
"""Learner steps that a measurement has, however long they take."""
QUICK = 0.5
"""Seconds of a learner step below which a run of four times as many environments is watched, too; else of a quarter."""
KINDS = {"actor": "actor", "learner": "learner", "shard": "shard", CHANNEL: "channel"}
"""Of processes, by the beginnings of their names."""
TICK = 1 / os.sysconf("SC_CLK_TCK")


def calibrated(
    lay: Lay, spaces: Spaces, *, envs: int, learners: int, seconds: float, say: Callable[[str], object]
) -> tuple[Costs, list[Seen]]:
    """Watch runs of one and two actors on this machine, and of two learners where several are planned.

    Args:
        lay: makes their experiments.
        spaces: of the environment.
        envs: environments of an actor, as planned.
        learners: as planned.
        seconds: that each run is watched.
        say: hears what goes on.

    Returns:
        What it all costs, but for the time of messages (see `plan_fit.settled`), and what was seen.
    """
    seen: list[Seen] = []

    def watch(actors: int, envs: int, learners: int = 1) -> Seen:
        with tempfile.TemporaryDirectory(prefix="contrail-plan-") as folder:
            found = watched(lay(actors, envs, learners), spaces, Path(folder), seconds=seconds)
        seen.append(found)
        those = f"{actors} actor{'s' * (actors > 1)} of {envs} environment{'s' * (envs > 1)}"
        say(f"watched {those}: {found.decisions / found.step:,.0f} env steps/s")
        return found

    for sizes in ((1, envs, 1), (2, envs, 1), *[(1, 2 * envs, 2)] * (learners > 1)):
        lay(*sizes)  # what cannot be is told at once
    start_ray("")
    try:
        first = watch(1, envs)
        watch(1, 4 * envs if first.step < QUICK or envs < 4 else envs // 4)
        watch(2, envs)
        if learners > 1:
            watch(1, 2 * envs, 2)
        look = look_seconds()
    finally:
        end_ray()
    experiment = lay(1, envs, 1)
    far = far_seconds(experiment, spaces.schema(experiment))
    machine = f"{len(os.sched_getaffinity(0))} cores of {processor()}"
    return replace(fitted(seen), look=look, far_row=far, machine=machine), seen


@dataclass(frozen=True)
class _Look:
    """Processor seconds and resident bytes of a run's processes, by kind, at one moment."""

    cpu: dict[str, float]
    memory: dict[str, float]


def watched(experiment: Experiment, spaces: Spaces, folder: Path, *, seconds: float) -> Seen:
    """Run an experiment for a while, without checkpoints and evaluation, in the Ray that is there."""
    statistics, blocks, updates, snapshots = Statistics(experiment), list[float](), list[float](), list[int]()
    with _world(experiment, spaces, folder) as world, Metrics(folder) as metrics:

        def step() -> int:
            advance = world.advance()
            values = statistics.add(advance)
            metrics.write(advance.steps, values)
            blocks.extend(block for block in [stage_seconds(values, "actor")] if block)
            updates.append(stage_seconds(values, "learner"))
            snapshots.extend(len(report.snapshot or b"") for report in advance.reports)
            return advance.steps

        begin, count = time.monotonic(), 0
        while count < WARM_UP_STEPS or time.monotonic() < begin + WARM_UP_SECONDS or not (pids := _pids(world)):
            steps, count = step(), count + 1
        blocks.clear()
        updates.clear()
        before, began, trained = _looked(pids), time.monotonic(), steps
        while len(updates) < LEAST_STEPS or time.monotonic() < began + seconds:
            steps = step()
        took, after = time.monotonic() - began, _looked(pids)
    count = len(updates)
    return Seen(
        **layout(experiment),
        step=took / count,
        block=mean(blocks),
        update=mean(updates),
        decisions=(steps - trained) / count,
        spread=spread(blocks),
        cpu={kind: max(0.0, value - before.cpu[kind]) / count for kind, value in after.cpu.items()},
        memory=after.memory,
        snapshot=float(mean(snapshots)) if snapshots else 0.0,
    )


@contextmanager
def _world(experiment: Experiment, spaces: Spaces, folder: Path) -> Iterator[Distributed]:
    """A run's processes, its rows in shared memory and kept compressed, as those of other runs are."""
    wanted = bytes_wanted(experiment, spaces)
    with segments_folder(folder, wanted, rows="lz4") as live:
        places = Places(live=live.resolve(), kept=folder / "replay", rows="lz4", live_bytes=2 * wanted)
        with Distributed(experiment, spaces, places=places, logs=folder / "logs") as world:
            yield world


def look_seconds(pending: int = 800) -> float:
    """Seconds that the driver takes for each call under way when it looks which has ended."""
    server: Any = ray.remote(num_cpus=0)(ChannelServer).remote()
    ended = server.pid.remote()
    ray.get(ended)
    waiting = [server.read.remote(-1, 1) for _ in range(pending)]

    def look(references: list) -> float:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            ray.wait(references, num_returns=1, timeout=1)
            times.append(time.perf_counter() - began)
        return median(times)

    few, many = look([*waiting[:1], ended]), look([*waiting, ended])
    ray.kill(server)
    return max(0.0, many - few) / pending


def far_seconds(experiment: Experiment, schema: Schema, blocks: int = 20) -> float:
    """Seconds that a shard takes for a row from another machine: to unpack it and to write it."""
    streams, rows = 8, max(1, min(experiment.rows, 64))
    sent: list[bytes] = []

    def send(trajectory: Trajectory) -> None:
        sent.append(pickle.dumps(trajectory, protocol=5))

    sender = Sender("far", schema, streams=range(streams), rows_per_segment=8 * rows, send=send)
    row = {name: np.zeros((streams, *column.shape), column.dtype) for name, column in schema.columns.items()}
    known = {name: row[name] for name in (*schema.observation_columns, "episode", "step")}
    for _ in range(blocks):
        for _ in range(rows):
            sender.append(row)
        sender.commit(known, version=0)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        shard = Shard(experiment.tables, seed=0)
        receiver = Receiver(schema, folder, shard)
        times = []
        for message in sent:
            began = time.thread_time()
            receiver.receive(pickle.loads(message))
            times.append(time.thread_time() - began)
        receiver.close()
        shard.close()
    return median(times) / (streams * rows)


def _pids(world: Distributed) -> dict[str, list[int]]:
    """The processes of a run by kind; none as long as one of them has not been heard of."""
    vitals, pids = world.vitals(), dict[str, list[int]]()
    if not all(each.pid for each in vitals):
        return {}
    for each in vitals:
        kind = next(kind for beginning, kind in KINDS.items() if each.name.startswith(beginning))
        pids.setdefault(kind, []).append(each.pid)
    return pids


def _looked(pids: dict[str, list[int]]) -> _Look:
    """What they have used so far, this process as the driver among them; "ray" is all else that began here."""
    stats = _stats()
    mine = {pid for those in pids.values() for pid in those}
    cpu = {kind: mean(stats[pid][1] for pid in those) for kind, those in pids.items()}
    memory = {kind: mean(stats[pid][2] for pid in those) for kind, those in pids.items()}
    family = {os.getpid()}
    while grown := {pid for pid, (parent, _, _) in stats.items() if parent in family} - family:
        family |= grown
    others = family - mine - {os.getpid()}
    cpu |= {"driver": time.process_time(), "ray": sum(stats[pid][1] for pid in others)}
    return _Look(cpu, memory | {"driver": stats[os.getpid()][2]})


def _stats() -> dict[int, tuple[int, float, float]]:
    """Parent, processor seconds and resident bytes of all processes, by id."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            values = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended
            continue
        parent, user, system, pages = int(values[1]), int(values[11]), int(values[12]), int(values[21])
        found[int(folder.name)] = (parent, (user + system) * TICK, float(pages * os.sysconf("SC_PAGE_SIZE")))
    return found


def processor() -> str:
    """The processor's name, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "an unknown kind")
