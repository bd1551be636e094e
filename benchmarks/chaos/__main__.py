"""What a run survives.

python -m benchmarks.chaos soak --minutes 30 --faults 60 --seed 1 --machines
python -m benchmarks.chaos everything --times 20 --seed 1

Both leave a report (JSON, Markdown) in `--report` and end with exit code 1 where a check fails.
"""

import shutil
import signal
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tyro

from benchmarks.chaos import curve, everything, report
from benchmarks.chaos.checks import Finding
from benchmarks.chaos.everything import equal, steps_of, survive, survived
from benchmarks.chaos.evidence import Evidence
from benchmarks.chaos.living import begin_training, say
from benchmarks.chaos.soak import flags_of, soak, soak_machines, summary
from benchmarks.chaos.workload import workload
from cluster.condition import Condition
from cluster.topology import Topology

PACE = 0.005
"""Seconds that a step of an environment takes."""
MOVING = 0.7
"""Share of a soak's time in which it is expected to train; in the rest it stands still for a fault."""
OTHERS = (11, 12, 13)
"""Seeds of the runs without faults. Not the run's own: its return is compared with what one more seed would give."""


def command_soak(
    *,
    minutes: float = 30.0,
    faults: int = 60,
    seed: int = 1,
    actors: int = 2,
    learners: int = 2,
    shards: int = 1,
    lag: int = 1,
    machines: bool = False,
    folder: Path = Path("runs/chaos"),
    report_in: Path = Path("docs/results/chaos"),
) -> None:
    """Kill, stop and fail processes of one run, and check that nothing is lost, repeated or left.

    Args:
        minutes: that the run takes, about.
        faults: how many.
        seed: of the faults and of the run.
        actors: of the run.
        learners: of the run.
        shards: of the run.
        lag: of its versions.
        machines: over three machines that this one pretends (root and Linux), of which one is killed, too, and one is
            cut off for 20 s.
        folder: where runs are kept.
        report_in: folder of the report.
    """
    topology = Topology(actors=actors, learners=learners, shards=shards, max_version_lag=lag)
    steps = int(60 * minutes * MOVING * actors / PACE)
    run = _new(folder, f"soak-{seed}")
    over = soak_machines if machines else soak
    soaked = over(run, steps=steps, faults=faults, topology=topology, pace=PACE, seed=seed, checkpoint_seconds=120.0)
    others = [_uninterrupted(folder, other, steps, topology) for other in OTHERS]
    found = [*soaked.found, curve.beside(run, others, steps)]
    told = summary(soaked) | {
        "curves": {path.name: curve.parts(curve.curve(path), steps) for path in (run, *others)},
        "findings": [asdict(one) for one in found],
    }
    report.write(report_in, "soak", told, report.soaked(told, found))
    curve.draw(run, others, soaked.done, report_in / "soak.png")
    _conclude(found)


def command_everything(
    *,
    times: int = 20,
    seed: int = 1,
    actors: int = 2,
    learners: int = 1,
    folder: Path = Path("runs/chaos"),
    report_in: Path = Path("docs/results/chaos"),
) -> None:
    """Kill all processes of a run at lag 0 at once, resume it, again and again: it must come to what it would have.

    Args:
        times: everything is killed.
        seed: of the moments and of the runs.
        actors: of the run.
        learners: of the run.
        folder: where runs are kept.
        report_in: folder of the report.
    """
    topology = Topology(actors=actors, learners=learners, max_version_lag=0)
    steps = steps_of(times, topology)
    run = _new(folder, f"everything-{seed}")
    flags = flags_of(topology, steps=steps, pace=everything.PACE, seed=seed)
    evidence, lives, left = survive(run, flags, times=times, seed=seed)
    other = Evidence(_uninterrupted(folder, seed, steps, topology), 0)
    found = [*survived(evidence, lives, left, times=times), equal(evidence, other)]
    told = report.compared(evidence, other, lives, found)
    report.write(report_in, "everything", told, report.survived(told, found))
    _conclude(found)


def _new(folder: Path, name: str) -> Path:
    return folder.resolve() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _uninterrupted(folder: Path, seed: int, steps: int, topology: Topology) -> Path:
    """A run of the same workload to which nothing is done and that does not wait; made if it is not there."""
    experiment = workload(steps=steps, seed=seed, topology=topology)
    run = folder.resolve() / f"quiet-{seed}-{steps}-{zlib.crc32(repr(experiment).encode()):08x}"
    condition = Condition.read(run)
    if condition is None or condition.phase != "finished":
        shutil.rmtree(run, ignore_errors=True)
        say(f"training {run.name}, without faults")
        command = begin_training(run, *flags_of(topology, steps=steps, seed=seed))
        try:
            if command.process.wait():
                raise SystemExit(f"{run.name} failed: see {run}.log; remove {run} before you try again")
        finally:
            command.end()
    return run


def _conclude(found: Sequence[Finding]) -> None:
    print(report.checked(found))
    sys.exit(0 if all(one.holds for one in found) else 1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing is left then either
    tyro.extras.subcommand_cli_from_dict({"soak": command_soak, "everything": command_everything})
