"""Our side of `benchmarks.throughput`: agent steps per second of PPO on Breakout, all processes and Ray included.

python -m benchmarks.ours_breakout --precision bf16 --iterations 5

Prints one JSON line. The first iterations, in which processes start and kernels are chosen, are not counted.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Literal

import tyro

from cluster.distributed import Distributed
from cluster.experiment import Spaces, Topology
from recipes.curl_ppo import curl_ppo
from replay.opening import Places


def measure(
    *,
    precision: Literal["fp32", "bf16"] = "bf16",
    iterations: int = 5,
    envs: int = 8,
    rows: int = 128,
    contrast: float = 0.0,
    warm_up: int = 1,
    topology: Topology = Topology(actors=2, learners=2),
) -> None:
    """Agent steps per second over `iterations` learner steps: 4 epochs of 4 minibatches each."""
    experiment = curl_ppo(
        envs=envs,
        rows=rows,
        epochs=4,
        minibatches=4,
        lr=2.5e-4,
        contrast=contrast,
        precision=precision,
        topology=topology,
    ).checked()
    spaces = Spaces.of(experiment.environment)
    with tempfile.TemporaryDirectory() as folder:
        segments = Path(folder) / "segments"
        segments.mkdir()
        places = Places(live=segments, kept=Path(folder) / "replay", rows="lz4")
        with Distributed(experiment, spaces, places=places, logs=Path(folder) / "logs") as world:
            for _ in range(warm_up):
                before = world.advance().steps
            started = time.perf_counter()
            for _ in range(iterations):
                after = world.advance().steps
            seconds = time.perf_counter() - started
    print(
        json.dumps({"steps_per_second": (after - before) / seconds, "precision": precision, "envs": envs, "rows": rows})
    )


if __name__ == "__main__":
    tyro.cli(measure)
