"""What a store that dies costs: a shard killed in the middle of a run, and a large store opened again.

python -m benchmarks.replay.faults --gigabytes 10 --kills 5

`restart_seconds`: from kill -9 of the shard's process to the answer to the next draw, in a run's own way (Ray starts
another, which reads its journal); priorities must be as before. `reopen_seconds`: from nothing to shards that hold all
windows of a run that was killed outright, and `first_batch_seconds` to the first batch out of them.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import time
from dataclasses import replace

import numpy as np
import ray

from benchmarks.replay.ours import SEGMENT_ROWS, SEQUENCES, Store, _by_block
from benchmarks.replay.peers import workload
from cluster.shard_handle import RayShard
from replay.opening import open_shard, prepare_restart
from replay.sampler import Sampler
from replay.table import Table

TABLE = Table(
    batch=64, window=workload.WINDOW, within=("episode",), select="prioritised", exponent=0.6, capacity=4_000_000
)


def restart(kills: int) -> dict[str, float]:
    """Seconds from a shard's death to its next answer."""
    store = Store(SEQUENCES, TABLE, restarts=kills)
    target = store.writer("writer", 8, segment_rows=SEGMENT_ROWS)
    fill = _by_block(target, workload.sequences(65_536, streams=8, seed=0, frames="sprites"), workload.WINDOW)
    for _ in range(256):
        fill()
    sampler = Sampler(SEQUENCES, store.tables, [RayShard(store.process, "shard")])
    rng, seconds = np.random.default_rng(0), []
    for step in range(20 * kills):
        if step % 20 == 10:
            before = ray.get(store.process.statistics.remote())
            os.kill(ray.get(store.process.pid.remote()), signal.SIGKILL)
            began = time.perf_counter()
        batch = sampler.read(step)["table"]
        if step % 20 == 10:
            seconds.append(time.perf_counter() - began)
            after = ray.get(store.process.statistics.remote())
            assert after["table/priorities_set"] >= before["table/priorities_set"] > 0
        sampler.prioritise("table", batch["item"], rng.random(64))
    store.close()
    return {"restart_seconds": round(statistics.median(seconds), 2), "restart_worst_seconds": round(max(seconds), 2)}


def reopen(gigabytes: float) -> dict[str, float]:
    """Seconds to open what a killed run left."""
    store = Store(SEQUENCES, TABLE)
    target = store.writer("writer", 8, segment_rows=SEGMENT_ROWS)
    fill = _by_block(target, workload.sequences(65_536, streams=8, seed=0, frames="sprites"), workload.WINDOW)
    for _ in range(int(gigabytes * 2**30 / (SEQUENCES.row_bytes * 8 * workload.WINDOW))):
        fill()
    RayShard(store.process, "shard").draw(0)
    os.kill(ray.get(store.process.pid.remote()), signal.SIGKILL)
    ray.shutdown()
    began = time.perf_counter()
    places = replace(store.places, start=1)
    assert prepare_restart(store.tables, places, shards=1, seed=0, version=1)
    shard, recorder = open_shard(store.tables, places, shards=1, index=0, seed=0)
    opened = time.perf_counter()
    Sampler(SEQUENCES, store.tables, [shard]).read(1)
    first = time.perf_counter()
    size = sum(path.stat().st_size for path in places.live.glob("*.arrow"))
    held = shard.statistics()["table/windows"]
    recorder.close()
    shutil.rmtree(places.live.parent)
    return {
        "gigabytes": round(size / 2**30, 2),
        "windows": held,
        "reopen_seconds": round(opened - began, 2),
        "first_batch_seconds": round(first - opened, 3),
    }


def main() -> None:
    """Print both as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=5)
    arguments = parser.parse_args()
    print(json.dumps({"benchmark": "faults"} | restart(arguments.kills) | reopen(arguments.gigabytes)))


if __name__ == "__main__":
    main()
