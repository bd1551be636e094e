"""One run of which everything is killed at once, again and again, and resumed."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.chaos.checks import Finding, counted, drawn, ended, gone, made_again, trained
from benchmarks.chaos.evidence import Evidence, grouped
from benchmarks.chaos.living import Command, begin_training, say, wait_until
from cluster import checkpoints
from cluster.recompute import CRC
from cluster.run_folder import RunFolder
from cluster.topology import Topology

EARLY = 0.2
"""Share of the kills that come within `SECONDS` of a start, where a run is being put together again."""
SECONDS, CHECKPOINT_SECONDS = 3.0, 2.0
"""At most between a life's first checkpoint, or its start, and its end; between checkpoints."""
PACE = 0.01
"""Seconds that a step of an environment takes."""

Rows = Mapping[tuple[str, int], int]
"""Complete rows by writer and stream."""


@dataclass(frozen=True)
class Life:
    """What there was right after everything had been killed.

    Attributes:
        early: whether the kill came while it started.
        version: of the newest checkpoint, from which the next life goes on.
        made: learner steps made by then, over all lives, of which those after the checkpoint are to be made again.
        rows: that could be read.
        seconds: from its start to its first learner step; nan: it made none.
    """

    early: bool
    version: int
    made: int
    rows: Rows
    seconds: float


def steps_of(times: int, topology: Topology) -> int:
    """Env steps that are more than so many lives can train on."""
    return int((times + 1) * (SECONDS + CHECKPOINT_SECONDS) * topology.actors / PACE)


def survive(run: Path, flags: Sequence[object], *, times: int, seed: int) -> tuple[Evidence, list[Life], Finding]:
    """Train, kill, resume, until it may come to its end: its files, its lives, and whether anything of it is left.

    Args:
        run: folder that is made for it.
        flags: of the workload.
        times: everything is killed.
        seed: of when.
    """
    rng, lives = np.random.default_rng(seed), list[Life]()
    keep = ["--run.checkpoint-seconds", CHECKPOINT_SECONDS, "--run.keep", 1_000_000]
    command = begin_training(run, *flags, *keep)
    try:
        while len(lives) < times and (life := _lived(command, rng, first=not lives)) is not None:
            lives.append(life)
            say(f"killed everything at learner step {life.made:,}, the checkpoint is of {life.version:,}")
            command = Command.begin(["resume", run], run)
        command.process.wait()
        left = gone(command)
    finally:
        command.end()
    _thin(run, [life.version for life in lives])
    return Evidence(run, command.process.returncode), lives, left


def _lived(command: Command, rng: np.random.Generator, *, first: bool) -> Life | None:
    """Let a command live for a while and kill it; None: it came to its end before."""
    began, early = time.time(), not first and bool(rng.random() < EARLY)
    before = _versions(command.run)
    if not early:
        wait_until(lambda: not command.goes_on or _versions(command.run) != before, float("inf"))
    time.sleep(rng.uniform(0, SECONDS))
    if not command.goes_on:
        return None
    command.kill_all()
    evidence = Evidence(command.run, 0)
    mine = [line["time"] for line in evidence.steps if line["time"] > began]
    rows = {key: len(columns["row"]) for key, columns in grouped(evidence.rows, "writer", "stream").items()}
    return Life(early, _versions(command.run)[-1], len(evidence.steps), rows, mine[0] - began if mine else float("nan"))


def _thin(run: Path, versions: Sequence[int]) -> None:
    """Leave only the checkpoints from which the run went on, and the newest: `made_again` starts at each."""
    for path in RunFolder(run).checkpoints()[:-1]:
        if checkpoints.version(path) not in versions:
            shutil.rmtree(path)


def _versions(run: Path) -> list[int]:
    return [checkpoints.version(path) for path in RunFolder(run).checkpoints()]


def survived(evidence: Evidence, lives: Sequence[Life], left: Finding, *, times: int) -> list[Finding]:
    """All that must hold."""
    count = Finding("everything was killed as often as was wanted", len(lives) == times, f"{len(lives)} of {times}")
    found = [ended(evidence), counted(evidence), *drawn(evidence), trained(evidence), kept(evidence, lives)]
    return [count, *found, made_again(evidence), left]


def kept(evidence: Evidence, lives: Sequence[Life]) -> Finding:
    """No row that could be read after a kill is gone."""
    rows = {key: len(columns["row"]) for key, columns in grouped(evidence.rows, "writer", "stream").items()}
    lost = [key for life in lives for key, count in life.rows.items() if rows.get(key, 0) < count]
    details = f"{sum(rows.values()):,} rows; lost: {sorted(set(lost)) or 'none'}"
    return Finding("every row that could be read after a kill is there in the end", not lost, details)


def equal(evidence: Evidence, other: Evidence) -> Finding:
    """Every learner step gave the weights that it gave in a run of the same seed that was left alone."""
    pairs = zip(evidence.steps, other.steps, strict=False)
    steps, others = len(evidence.steps), len(other.steps)
    same = next((number for number, (a, b) in enumerate(pairs) if a[CRC] != b[CRC]), min(steps, others))
    details = f"the first {same:,} learner steps of {steps:,}, and of {others:,} of the run left alone"
    return Finding(
        "the weights are those of a run left alone, bit for bit, after every learner step",
        same == steps == others,
        details,
    )
