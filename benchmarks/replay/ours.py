"""Contrail's store as a run has it: the shard in a Ray process with its journal, rows written and gathered in place.

Settings: as a recipe whose actors may run ahead (`max_version_lag` above 0): eight commits and draws may be under
way. Windows stay within episodes; `--offsets any`: stride 1, `aligned`: stride 32. Priorities as the peers have them,
exponent 0.6. Rows are not archived while speeds are measured, unless `--archive`; `bytes` archives them with lz4.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray._private import ray_constants

from benchmarks.replay.peers import workload
from benchmarks.replay.peers.rounds import Feeder, Measure, flags, main, mixed, speed
from cluster.embedded import start_ray
from cluster.shard_handle import RayShard
from cluster.store import ShardProcess
from replay.opening import Places
from replay.sampler import Prefetch, Sampler
from replay.schema import Column, Schema
from replay.segment import Segment
from replay.table import Table, watched
from replay.writer import Writer

AHEAD, SEGMENT_ROWS = 8, 512
FOLDER = Path("/dev/shm")


def _schema(columns: dict) -> Schema:
    return Schema({name: Column(dtype, shape) for name, (dtype, shape) in columns.items()})


SEQUENCES = _schema(workload.ROW)
CARTPOLE = _schema(
    {name: entry for name, entry in workload.TRANSITION.items() if name != "next_observation"}
    | {"mask": ("uint8", ()), "episode": ("int64", ())}
)


class Store:
    """A shard in a process of its own, and how to write to it and read from it here."""

    def __init__(self, schema: Schema, table: Table, *, rows: str = "none", restarts: int = 0) -> None:
        self.schema, self.tables = schema, {"table": table}
        self._folder = tempfile.TemporaryDirectory(dir=FOLDER, prefix="benchmark-store-")
        live = Path(self._folder.name) / "live"
        live.mkdir()
        self.places = Places(live=live, kept=Path(self._folder.name) / "kept", rows=rows)
        start_ray("")
        faults = {"max_restarts": restarts, "max_task_retries": -1 if restarts else 0}
        made = ray.remote(num_cpus=0, max_concurrency=1000, **faults)(ShardProcess)
        process = made.options(name="shard", namespace="store")
        self.process = process.remote(self.tables, self.places, schema, shards=1, index=0, seed=0)
        self.address = f"127.0.0.1:{ray.get_runtime_context().gcs_address.rpartition(':')[2]}"

    def writer(self, name: str, streams: int, *, segment_rows: int) -> Writer:
        """A writer whose commits go to the shard; streams are numbered from 0."""
        return writer(self.process, name, self.schema, self.tables, self.places.live, streams, segment_rows)

    def sampler(self) -> Prefetch:
        """Reads batches one ahead."""
        shard = RayShard(self.process, "shard", ahead=AHEAD)
        return Prefetch(Sampler(self.schema, self.tables, [shard], buffers=2))

    def close(self) -> None:
        """End the shard, remove the files."""
        ray.get(self.process.close.remote())
        ray.shutdown()
        self._folder.cleanup()


def writer(
    process: Any, name: str, schema: Schema, tables: dict[str, Table], live: Path, streams: int, segment_rows: int
) -> Writer:
    """A writer of this process."""
    return Writer(
        name,
        schema,
        streams=range(streams),
        folder=live,
        rows_per_segment=segment_rows,
        commit=RayShard(process, "shard", ahead=AHEAD).commit,
        watch=watched(tables),
    )


def _table(arguments: argparse.Namespace, windows: int) -> Table:
    stride = 1 if arguments.offsets == "any" else workload.WINDOW
    return Table(
        batch=arguments.batch,
        window=workload.WINDOW,
        stride=stride,
        within=("episode",),
        select=arguments.select,
        exponent=0.6,
        capacity=max(windows // stride, arguments.batch),
    )


def _sampling(store: Store, arguments: argparse.Namespace) -> Callable[[], int]:
    sampler, rng, step = store.sampler(), np.random.default_rng(arguments.seed), -1

    def sample() -> int:
        nonlocal step
        step += 1
        batch = sampler.read(step)["table"]
        if arguments.select == "prioritised":
            sampler.prioritise("table", batch["item"], rng.random(arguments.batch))
        return arguments.batch

    return sample


def _by_block(target: Writer, data: dict[str, np.ndarray], rows: int) -> Callable[[], int]:
    """Appends the next rows of all streams at once, and commits them."""
    position, (streams, each) = 0, data["episode"].shape
    first = {name: values[:, 0] for name, values in data.items() if name == "observation"}

    def step() -> int:
        nonlocal position
        position = position if position + rows <= each else 0
        target.extend({name: values[:, position : position + rows] for name, values in data.items()})
        target.commit(first, version=0)
        position += rows
        return streams * rows // workload.WINDOW

    return step


def _by_step(target: Writer, data: dict[str, np.ndarray]) -> Callable[[], int]:
    """Appends a window's rows step by step, as an actor does, and commits them."""
    position, (streams, each) = 0, data["episode"].shape
    first = {name: values[:, 0] for name, values in data.items() if name == "observation"}

    def step() -> int:
        nonlocal position
        for _ in range(workload.WINDOW):
            target.append({name: values[:, position] for name, values in data.items()})
            position = (position + 1) % each
        target.commit(first, version=0)
        return streams

    return step


def _data(arguments: argparse.Namespace, rows: int) -> dict[str, np.ndarray]:
    return workload.sequences(rows, streams=arguments.streams, seed=arguments.seed, frames=arguments.frames)


@contextmanager
def _filled(arguments: argparse.Namespace, *, rows: str = "none") -> Iterator[tuple[Store, Writer]]:
    store = Store(SEQUENCES, _table(arguments, arguments.rows), rows=rows)
    target = store.writer("filler", arguments.streams, segment_rows=SEGMENT_ROWS)
    fill = _by_block(target, _data(arguments, arguments.rows), workload.WINDOW)
    for _ in range(arguments.rows // arguments.streams // workload.WINDOW):
        fill()
    try:
        yield store, target
    finally:
        target.close()
        store.close()


@contextmanager
def sequences(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Batches of windows."""
    with _filled(arguments) as (store, _):
        sample, plain = _sampling(store, arguments), _plain(store, arguments)
        yield lambda: {
            "items_per_second": speed(sample, arguments.seconds),
            "plain_per_second": speed(plain, arguments.seconds),
        }


def _plain(store: Store, arguments: argparse.Namespace) -> Callable[[], int]:
    """A plain numpy gather of as many blocks of the same mapped segments, chosen at random and without any store."""
    segments = [Segment.open(path) for path in sorted(store.places.live.glob("filler-*.arrow"))]
    rng = np.random.default_rng(arguments.seed)
    shape = (arguments.batch, workload.WINDOW)
    batch = {name: np.zeros((*shape, *column.shape), column.dtype) for name, column in store.schema.columns.items()}

    def gather() -> int:
        which = rng.integers(0, len(segments), arguments.batch).tolist()
        slots = rng.integers(0, arguments.streams, arguments.batch).tolist()
        rows = rng.integers(0, SEGMENT_ROWS - workload.WINDOW + 1, arguments.batch).tolist()
        for name, target in batch.items():
            for place in range(arguments.batch):
                source, row = segments[which[place]].columns[name], rows[place]
                target[place] = source[slots[place], row : row + workload.WINDOW]
        return arguments.batch

    return gather


@contextmanager
def insert(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Into a full store, so that something leaves for everything that comes."""
    with _filled(arguments) as (_, target):
        data = _data(arguments, 8192)
        step = _by_step(target, data) if arguments.grain == "step" else _by_block(target, data, workload.WINDOW)
        yield lambda: {"items_per_second": speed(step, arguments.seconds)}


def _inserter(address: str, live: Path, tables: dict[str, Table], arguments: argparse.Namespace) -> Callable[[], int]:
    """In a process of its own: streams of other numbers, so that those that are there stay."""
    ray_constants.ENABLE_RAY_CLUSTER = False  # as the one it joins: on this machine's loopback alone
    ray.init(address, namespace="store", log_to_driver=False, _node_ip_address="127.0.0.1")
    process = ray.get_actor("shard")
    target = writer(process, "feeder", SEQUENCES, tables, live, arguments.streams, SEGMENT_ROWS)
    target.streams = tuple(stream + arguments.streams for stream in target.streams)
    return _by_block(target, _data(arguments, 8192), workload.WINDOW)


@contextmanager
def both(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Sampling here while another process inserts."""
    with _filled(arguments) as (store, _):
        sample = _sampling(store, arguments)
        with Feeder(_inserter, store.address, store.places.live, store.tables, arguments) as feeder:
            yield lambda: mixed(sample, arguments.seconds, feeder)


@contextmanager
def transitions(arguments: argparse.Namespace) -> Iterator[Measure]:
    """CartPole transitions: windows of two rows, the second for the next observation."""
    table = Table(
        batch=arguments.batch, window=2, select=arguments.select, exponent=0.6, capacity=arguments.rows, within=()
    )
    store = Store(CARTPOLE, table)
    each = arguments.rows // arguments.streams
    target = store.writer("filler", arguments.streams, segment_rows=each)
    made = workload.transitions(arguments.rows, seed=arguments.seed)
    made |= {"mask": np.ones(arguments.rows, np.uint8), "episode": np.cumsum(made["terminated"], dtype=np.int64)}
    data = {name: made[name].reshape(arguments.streams, each, *c.shape) for name, c in CARTPOLE.columns.items()}
    target.extend({name: values[:, :-1] for name, values in data.items()})
    target.commit({"observation": data["observation"][:, -1]}, version=0)
    sample = _sampling(store, arguments)
    try:
        yield lambda: {"items_per_second": speed(sample, arguments.seconds)}
    finally:
        target.close()
        store.close()


@contextmanager
def stored(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Bytes of a row while it is live, and in the archive."""
    with _filled(arguments, rows="lz4") as (store, _):
        live = sum(path.stat().st_size for path in store.places.live.glob("*.arrow"))
        ray.get(store.process.close.remote())
        kept = sum(path.stat().st_size for path in store.places.log.glob("*.arrow"))
        yield lambda: {"bytes_per_step": live / arguments.rows, "archived_bytes_per_step": kept / arguments.rows}


if __name__ == "__main__":
    main(
        "ours",
        {"sequences": sequences, "insert": insert, "mixed": both, "transitions": transitions, "bytes": stored},
        flags(__doc__),
    )
