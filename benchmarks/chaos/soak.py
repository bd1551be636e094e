"""One run with faults all along it, and what came of it."""

import shutil
import statistics
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from benchmarks.chaos.checks import Finding, findings, gone, made_again, nothing
from benchmarks.chaos.evidence import Evidence
from benchmarks.chaos.living import begin_training
from benchmarks.chaos.machines import Cluster, pretended
from benchmarks.chaos.siege import OF_MACHINES, Done, besiege, planned
from cluster.topology import Topology

SEVERAL = "several"
"""Faults that came while training stood still for others."""


@dataclass(frozen=True)
class Soaked:
    """What came of a run.

    Attributes:
        evidence: its files.
        done: the faults, in order of time.
        found: the outcome of all checks.
    """

    evidence: Evidence
    done: list[Done]
    found: list[Finding]


def flags_of(topology: Topology, **recipe: object) -> list[object]:
    """Flags of `contrail train` for the workload."""
    places = {
        "topology.actors": topology.actors,
        "topology.learners": topology.learners,
        "topology.shards": topology.shards,
        "topology.max-version-lag": topology.max_version_lag,
        "topology.threads": topology.threads,
    }
    return [word for name, value in {**places, **recipe}.items() for word in (f"--{name}", value)]


def soak(
    run: Path, *, steps: int, faults: int, topology: Topology, pace: float, seed: int, checkpoint_seconds: float
) -> Soaked:
    """Train with faults, and check all that the run left.

    Args:
        run: folder that is made for it.
        steps: env steps that it trains on.
        faults: how many.
        topology: of the run.
        pace: of its environments, in seconds a step.
        seed: of the faults and of the run.
        checkpoint_seconds: between checkpoints; all are kept.
    """
    trap = trap_beside(run)
    flags = flags_of(topology, steps=steps, pace=pace, trap=trap, seed=seed, **kept(checkpoint_seconds))
    command = begin_training(run, *flags)
    try:
        done = besiege(command, planned(faults, topology, seed=seed), steps=steps, trap=trap)
        command.process.wait()
        left = gone(command)
    finally:
        command.end()
    return looked_at(Evidence(run, command.process.returncode), done, left, faults=faults)


def soak_machines(
    run: Path, *, steps: int, faults: int, topology: Topology, pace: float, seed: int, checkpoint_seconds: float
) -> Soaked:
    """As `soak`, over three machines, of which one dies and one is cut off for a while; the run is copied to `run`.

    Learners have two threads, so that there is room for one on each machine: where both die with the only machine that
    kept their state, a run goes back to its checkpoint, and some rows are rightly never learned from.
    """
    topology = replace(topology, threads=2)
    trap = trap_beside(Path("/var/tmp", run.name))  # which the machines share, as they do not share homes and /tmp
    flags = flags_of(topology, steps=steps, pace=pace, trap=trap, seed=seed, **kept(checkpoint_seconds))
    with pretended() as machines:
        command = Cluster(machines, run.name, flags)
        try:
            done = besiege(command, planned(faults, topology, seed=seed, once=OF_MACHINES), steps=steps, trap=trap)
            code = command.process.wait()
            left = nothing(*command.left())
        finally:
            command.end()
            shutil.copy(command.log, f"{run}.log")
            if command.run.is_dir():
                shutil.copytree(command.run, run, symlinks=True)  # live segments are gone with their machine
    return looked_at(Evidence(run, code), done, left, faults=faults)


def trap_beside(run: Path) -> Path:
    """The file by which an environment is made to raise, not there yet."""
    trap = run.parent / f"{run.name}.trap"
    trap.parent.mkdir(parents=True, exist_ok=True)
    trap.unlink(missing_ok=True)
    return trap


def kept(checkpoint_seconds: float) -> dict[str, object]:
    """Flags by which all checkpoints stay."""
    return {"run.checkpoint-seconds": checkpoint_seconds, "run.keep": 1_000_000}


def looked_at(evidence: Evidence, done: list[Done], left: Finding, *, faults: int) -> Soaked:
    """All checks of a run that has ended."""
    count = Finding("all faults happened", len(done) == faults, f"{len(done)} of {faults}")
    return Soaked(evidence, done, [count, *findings(evidence), made_again(evidence), left])


def pauses(soaked: Soaked) -> dict[str, list[float]]:
    """By kind of fault, how long training stood still: the longest time from one learner step to the next.

    A fault counts from the step under way then up to the one before the next fault; so the pause of a fault for which
    nothing waits is that of an ordinary step. Faults that came while training stood still for another are `several`.
    """
    found: dict[str, list[float]] = {}
    left = list(soaked.done)
    for before, after in pairwise(line["time"] for line in soaked.evidence.steps):
        new = [fault for fault in left if fault.time < after]
        left = left[len(new) :]
        if new:
            mine = found.setdefault(new[0].kind if len(new) == 1 else SEVERAL, [])
            mine.append(0.0)
        if len(left) < len(soaked.done):
            mine[-1] = max(mine[-1], after - before)
    return found


def told(soaked: Soaked) -> dict[str, list[float]]:
    """By kind of process, what the run itself wrote: seconds from when it heard of a death to the next step."""
    found: dict[str, list[float]] = {}
    for line in soaked.evidence.told:
        if line["event"] == "goes on":
            found.setdefault(line["process"].partition("-")[0], []).append(line["seconds"])
    return found


def summary(soaked: Soaked) -> dict[str, object]:
    """All of it as JSON can hold it."""
    times = [line["time"] for line in soaked.evidence.steps]
    return {
        "run": soaked.evidence.run.name,
        "env_steps": soaked.evidence.steps[-1]["step"],
        "learner_steps": len(times),
        "seconds": round(times[-1] - times[0], 1),
        "ordinary_step_seconds": round(statistics.median(b - a for a, b in pairwise(times)), 3),
        "faults": [asdict(fault) for fault in soaked.done],
        "stood_still": {kind: spread(values) for kind, values in pauses(soaked).items()},
        "goes_on": {kind: spread(values) for kind, values in told(soaked).items()},
        "deaths_told": sum(line["event"] == "died" for line in soaked.evidence.told),
        "findings": [asdict(finding) for finding in soaked.found],
    }


def spread(values: list[float]) -> dict[str, float]:
    """How many, their median and the worst."""
    return {"count": len(values), "median": round(statistics.median(values), 2), "worst": round(max(values), 2)}
