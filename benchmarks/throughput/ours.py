"""Our side of `benchmarks.throughput`: agent steps a second of a recipe, all processes, metrics and Ray included.

python -m benchmarks.throughput.ours --task cartpole --topology.local
python -m benchmarks.throughput.ours --task breakout --precision bf16 --topology.actors 2 --topology.learners 2

Prints one JSON line. The first iterations, in which processes start and kernels are chosen, are not counted.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.compared import compared
from benchmarks.settings import Method, Name
from benchmarks.timed import cpu_seconds
from cluster.experiment import Experiment, Spaces, Topology
from cluster.metrics import Metrics
from cluster.statistics import Statistics
from cluster.world import Local, World
from recipes.curl_ppo import curl_ppo
from replay.opening import Places


def measure(
    *,
    task: Name = "breakout",
    method: Method = "ppo",
    precision: Literal["fp32", "bf16"] = "bf16",
    envs: int = 8,
    rows: int = 128,
    iterations: int = 4,
    warm_up: int = 1,
    topology: Topology = Topology(actors=1, learners=1),
) -> None:
    """Agent steps per second over `iterations` learner steps; the numbers are written as in any run.

    Args:
        task: of `benchmarks.settings`.
        method: on it.
        precision: of the encoder (Breakout).
        envs: environments (Breakout).
        rows: of each between two learner steps (Breakout).
        iterations: learner steps that are counted.
        warm_up: learner steps that are not.
        topology: where it runs.
    """
    experiment = (
        curl_ppo(
            envs=envs,
            rows=rows,
            epochs=4,
            minibatches=4,
            lr=2.5e-4,
            contrast=0.0,
            precision=precision,
            topology=topology,
        )
        if task == "breakout"
        else compared(task=task, method=method, topology=topology)
    ).checked()
    with (
        tempfile.TemporaryDirectory() as name,
        Metrics(Path(name)) as metrics,
        _world(experiment, Path(name)) as world,
    ):
        speed = _measured(world, Statistics(experiment), metrics, iterations, warm_up)
    print(json.dumps(speed))


def _world(experiment: Experiment, folder: Path) -> World:
    segments = folder / "segments"
    segments.mkdir()
    spaces = Spaces.of(experiment.environment)
    places = Places(live=segments, kept=folder / "replay", rows="lz4")
    if experiment.topology.local:
        return Local(experiment, spaces, places=places)
    from cluster.distributed import Distributed  # and with it Ray, which a run in one process does without

    return Distributed(experiment, spaces, places=places, logs=folder / "logs")


def _measured(
    world: World, statistics: Statistics, metrics: Metrics, iterations: int, warm_up: int
) -> dict[str, float]:
    def step() -> int:
        advance = world.advance()
        metrics.write(advance.steps, statistics.add(advance))
        return advance.steps

    for _ in range(warm_up):
        before = step()
    started, used = time.perf_counter(), cpu_seconds(os.getpid())
    for _ in range(iterations):
        after = step()
    seconds, used = time.perf_counter() - started, cpu_seconds(os.getpid()) - used
    return {
        "steps_per_second": (after - before) / seconds,
        "cpu_microseconds": 1e6 * used / (after - before),
    }


if __name__ == "__main__":
    tyro.cli(measure)
