"""What must hold of a run that has ended, whatever was done to it meanwhile."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.chaos.evidence import Evidence, grouped
from benchmarks.chaos.living import Command, wait_until
from cluster import checkpoints
from cluster.condition import Condition
from cluster.experiment import Spaces
from cluster.recompute import Again, recompute

LINGERS = 90.0
"""Seconds that Ray's agents may take to end themselves after their driver."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Finding:
    """The outcome of a check.

    Attributes:
        what: was checked, as a sentence that should be true.
        holds: whether it is.
        details: the numbers.
    """

    what: str
    holds: bool
    details: str


def findings(evidence: Evidence) -> list[Finding]:
    """All that the files of a run tell."""
    return [ended(evidence), counted(evidence), *drawn(evidence), *stored(evidence), trained(evidence)]


def ended(evidence: Evidence) -> Finding:
    """It came to its step count by itself."""
    condition, wanted = Condition.read(evidence.run), evidence.experiment.steps
    phase, steps = (condition.phase, condition.steps) if condition else ("unknown", 0)
    holds = evidence.code == 0 and phase == "finished" and steps >= wanted
    details = f"exit code {evidence.code}, {phase}, {steps:,} of {wanted:,} env steps"
    return Finding("the run ended by itself at its step count", holds, details)


def counted(evidence: Evidence) -> Finding:
    """Versions 1, 2, 3, ... each with more env steps than the one before, and a checksum; the newest checkpoint too."""
    versions = [line["train/version"] for line in evidence.steps]
    steps = [line["step"] for line in evidence.steps]
    newest = checkpoints.read(evidence.folder.latest())[1]
    holds = (
        versions == list(range(1, len(versions) + 1))
        and bool((np.diff(steps) > 0).all())
        and all("facts/weights_crc" in line for line in evidence.steps)
        and (newest["version"], newest["steps"]) == (versions[-1], steps[-1])
    )
    details = f"{len(versions):,} learner steps, versions {versions[0]:g} to {versions[-1]:g}, {steps[-1]:,} env steps"
    return Finding("learner steps are consecutive, none twice, none left out", holds, details)


def drawn(evidence: Evidence) -> list[Finding]:
    """Every step got each stream's next block, and no row went to two."""
    draws, steps, streams = evidence.draws, len(evidence.steps), evidence.experiment.envs
    pairs = draws["step"] * streams + draws["stream"]
    each = len(pairs) == steps * streams and np.array_equal(np.sort(pairs), np.arange(steps * streams))
    whole = Finding("every learner step drew each stream once", each, f"{steps:,} steps of {streams} streams")
    windows = grouped(draws, "writer", "stream")
    rows = evidence.experiment.rows
    wrong = [
        key
        for key, mine in windows.items()
        if not np.array_equal(mine["row"], np.arange(len(mine["row"])) * rows) or (mine["kept"] != rows).any()
    ]
    details = f"{len(pairs):,} blocks of {len({writer for writer, _ in windows})} writers; not so: {wrong or 'none'}"
    once = Finding("every block of a writer was drawn once, in order, from its first one on", not wrong, details)
    return [whole, once]


def stored(evidence: Evidence) -> list[Finding]:
    """The archive has what was committed; of that, nothing is left undrawn but what came too late for the last step."""
    rows, envs = evidence.experiment.rows, evidence.experiment.envs
    streams = grouped(evidence.rows, "writer", "stream")
    torn = [key for key, mine in streams.items() if not np.array_equal(mine["row"], np.arange(len(mine["row"])))]
    counts = {key: len(mine["row"]) for key, mine in streams.items()}
    odd = {key: count for key, count in counts.items() if count % rows > 1}  # one may be a last observation
    complete = sum(count // rows * rows for count in counts.values())
    holds = not torn and not odd and complete == evidence.committed
    details = f"{evidence.committed:,} committed, {complete:,} stored; torn: {torn or 'none'}, odd: {odd or 'none'}"
    same = Finding("rows committed are rows stored, numbered without a gap", holds, details)
    used = {key: len(mine["row"]) for key, mine in grouped(evidence.draws, "writer", "stream").items()}
    late = {key: count // rows - used.get(key, 0) for key, count in counts.items() if count // rows != used.get(key, 0)}
    most = evidence.experiment.topology.max_version_lag + 1
    last = {stream: max(_life(writer) for writer, other in counts if other == stream) for _, stream in counts}
    fine = all(0 < left <= most and _life(writer) == last[stream] for (writer, stream), left in late.items())
    details = f"{sum(late.values())} blocks of {envs} streams came after the last step"
    return [same, Finding("every stored block was drawn, but those after the last learner step", fine, details)]


def trained(evidence: Evidence) -> Finding:
    """The env steps that the learners counted are the decisions in the blocks that were drawn."""
    used = {key: int(mine["row"][-1]) for key, mine in grouped(evidence.draws, "writer", "stream").items()}
    rows, decisions = evidence.experiment.rows, 0
    for key, mine in grouped(evidence.rows, "writer", "stream").items():
        decisions += int((mine["mask"][mine["row"] < used.get(key, -rows) + rows] > 0).sum())
    steps = int(evidence.steps[-1]["step"])
    details = f"{steps:,} env steps, {decisions:,} decisions"
    return Finding("env steps are the decisions that were drawn, each once", steps == decisions, details)


def made_again(evidence: Evidence) -> Finding:
    """All learner steps, from each checkpoint to the next, give the weights that the run had: bit for bit."""
    folder, made = evidence.folder, list[Again]()
    spaces = Spaces.of(evidence.experiment.environment)
    for path in folder.checkpoints():
        if (version := checkpoints.version(path)) > 0:
            recompute(evidence.experiment, spaces, folder, version - 1, told=made.append)
    wrong = [again.step for again in made if again.crc != again.recorded]
    holds = not wrong and [again.step for again in made] == list(range(len(evidence.steps)))
    details = f"{len(made):,} steps made again; other weights after: {wrong[:5] or 'none'}"
    return Finding("every learner step can be made again, bit for bit", holds, details)


def gone(command: Command) -> Finding:
    """No process of the command, and nothing of its run or of its processes in shared memory."""
    wait_until(lambda: not command.living(), LINGERS)
    processes = sorted(command.living().values())
    marks = (f"-{command.run.name}-", *(f"contrail-{pid}-" for pid in command.seen))
    return nothing(processes, [path.name for path in SHARED_MEMORY.iterdir() if any(m in path.name for m in marks)])


def nothing(processes: list[str], files: list[str]) -> Finding:
    """That these are none."""
    details = f"processes: {processes or 'none'}; files: {files or 'none'}"
    return Finding("nothing is left running or in shared memory", not processes and not files, details)


def _life(writer: str) -> tuple[int, int, int]:
    """Which start of the run a writer was of, which process in its place, and its how manieth name: actor-0.1-2.3.

    An actor on another machine takes a new name where its shard was started again.
    """
    _, place, *name = writer.split(".")
    start, _, life = place.partition("-")
    return int(start), int(life or 0), int(name[0]) if name else 0
