"""What is measured: the systems of each task, in the order of a round, as commands."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.peer import Peer
from benchmarks.settings import Method, Name, told
from benchmarks.timed import HOUSE

Measured = Literal["breakout", "breakout64", "cartpole", "halfcheetah", "minigrid", "trpo", "a2c", "breakout-places"]
Command = list[str | Path]
SCRIPTS = HOUSE / "benchmarks" / "peers"

PLACES: Mapping[str, Sequence[str]] = {
    "one process": ["--topology.local"],
    "Ray, 1 actor": ["--topology.no-local"],
    "Ray, 2 actors": ["--topology.no-local", "--topology.actors", "2"],
}
"""Where ours runs, with one learner."""


@dataclass(frozen=True)
class Small:
    """A task of vectors with small networks, settings of `benchmarks.settings`.

    Attributes:
        task: its name there.
        method: and its method.
        iterations: that are counted in each measurement.
        warm_up: that come first.
    """

    task: Name
    method: Method
    iterations: int
    warm_up: int


SMALL_TASKS: Mapping[str, Small] = {
    "cartpole": Small("cartpole", "ppo", 120, 20),
    "halfcheetah": Small("cheetah", "ppo", 12, 2),
    "minigrid": Small("empty", "ppo", 20, 3),
    "trpo": Small("cartpole", "trpo", 30, 4),
    "a2c": Small("cartpole", "a2c", 300, 40),
}
SHAPES: Mapping[str, tuple[int, int]] = {"breakout": (8, 128), "breakout64": (64, 16), "breakout-places": (8, 128)}
"""Environments and rows of each between two learner steps."""


SUIT: Mapping[Measured, tuple[Peer, ...]] = {
    "breakout": ("sb3",),
    "breakout64": ("sb3",),
    "cartpole": ("sb3", "rllib", "torchrl", "tianshou", "cleanrl"),
    "halfcheetah": ("sb3", "rllib", "torchrl", "tianshou"),
    "minigrid": ("sb3", "rllib", "torchrl", "tianshou"),
    "trpo": ("sb3",),
    "a2c": ("sb3",),
    "breakout-places": (),
}
"""Which peers do the work of a task."""


def commands(task: Measured, peers: Mapping[Peer, Path], *, iterations: int) -> dict[str, Command]:
    """The systems by name. The first is what the others are compared with: a peer, where there is one.

    Args:
        task: which.
        peers: the interpreters of peers that suit it.
        iterations: that are counted; 0: as many as suit the task.
    """
    if task in SMALL_TASKS:
        return _small(SMALL_TASKS[task], peers, iterations)
    envs, rows = SHAPES[task]
    size = ["--envs", str(envs), "--rows", str(rows), "--iterations", str(iterations or 4)]
    ours: Command = [sys.executable, "-m", "benchmarks.throughput.ours", "--task", "breakout", *size]
    if task == "breakout-places":
        both = {"one process": PLACES["one process"], "Ray, 1 actor": PLACES["Ray, 1 actor"]}
        threads = ["--topology.threads", str(os.cpu_count())]
        return {f"ours bf16, {name}": [*ours, "--precision", "bf16", *place, *threads] for name, place in both.items()}
    threads = ["--threads", str(os.cpu_count())]
    theirs: dict[str, Command] = {
        peer: [python, SCRIPTS / f"{peer}_breakout.py", *size, *threads] for peer, python in peers.items()
    }
    shared = ["--topology.no-local", "--topology.actors", "2", "--topology.learners", "2"]
    return theirs | {f"ours {precision}": [*ours, "--precision", precision, *shared] for precision in ("fp32", "bf16")}


def _small(of: Small, peers: Mapping[Peer, Path], iterations: int) -> dict[str, Command]:
    counts = ["--iterations", str(iterations or of.iterations), "--warm-up", str(of.warm_up)]
    run = json.dumps(told(of.task, of.method))
    theirs: dict[str, Command] = {
        peer: [python, SCRIPTS / f"{peer}_speed.py", run, *counts] for peer, python in peers.items()
    }
    ours: Command = [sys.executable, "-m", "benchmarks.throughput.ours", "--task", of.task, "--method", of.method]
    return theirs | {f"ours, {name}": [*ours, *counts, *place] for name, place in PLACES.items()}
