"""dm-reverb 0.14 with TensorFlow 2.14, for which it was built: a server, writers over gRPC, a tf.data reader.

Settings. Server: by default in a process of its own, as a distributed run has it; `--server inside` puts it in the
learner's process, where Reverb hands samples over without gRPC. Table: `Prioritized(0.6)` or `Uniform`, `Fifo` remover,
`MinSize(1)`. Reading: `TrajectoryDataset`, two workers, twice the batch in flight (its documentation: 2 to 3 times),
batched by tf.data, no further prefetch (measured: interleaving several datasets as Acme does was no faster here).
Priorities: `mutate_priorities` after every prioritised batch, in a thread of their own that is at most two batches
behind, as Acme's learners do it; the reader has prefetched about three batches with the older priorities.

An item is a window of 32 steps. `--offsets any` makes an item at every step of an episode but its first 31 (overlapping
windows share chunks), `aligned` one every 32 steps. Rows of a chunk are compressed together: 32 for aligned windows, 16
for others, which were the fastest to sample (`--chunk`; 0 is Reverb's automatic choice, which begins at 1 and takes
thousands of steps to grow). `--writer structured` builds items in C++ and inserts up to twice as fast, but its chunks
are always automatic, and what it wrote is sampled at a third of the speed at first; `insert --grain block` uses
`append_sequence` of the older writer, Reverb's only call that takes several steps. `transitions` are written by that
too: its chunks hold all columns, and are read up to 1.5 times as fast. All writers keep at most 64 items in flight.

`bytes` fills a server with a recording and measures by how much its process grows, which includes its items and keys.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import reverb

from benchmarks.replay.peers import workload
from benchmarks.replay.peers.reverb_writing import IN_FLIGHT, TABLE, by_block, by_step, inserters_of, server_of
from benchmarks.replay.peers.rounds import Feeder, Measure, flags, main, mixed, speed


def _sequences(arguments: argparse.Namespace, rows: int) -> dict[str, np.ndarray]:
    return workload.sequences(rows, streams=arguments.streams, seed=arguments.seed, frames=arguments.frames)


def _fill(address: str, arguments: argparse.Namespace, data: dict[str, np.ndarray]) -> list:
    inserters = inserters_of(address, arguments)
    step = by_step(inserters, data)
    for _ in range(data["step"].shape[1] // workload.WINDOW):
        step()
    for inserter in inserters:
        inserter.finish()
    return inserters


def _items(arguments: argparse.Namespace) -> int:
    return arguments.rows // (workload.WINDOW if arguments.offsets == "aligned" else 1)


def _server(arguments: argparse.Namespace) -> AbstractContextManager[tuple[str, int]]:
    return server_of(arguments.server, workload.ROW, _items(arguments), arguments.select, workload.WINDOW)


class Reader:
    """Batches of the table, and new priorities for them."""

    def __init__(self, address: str, arguments: argparse.Namespace) -> None:
        dataset = reverb.TrajectoryDataset.from_table_signature(
            address, TABLE, max_in_flight_samples_per_worker=2 * arguments.batch, num_workers_per_iterator=2
        )
        self._batches = iter(dataset.batch(arguments.batch, drop_remainder=True))
        self._client, self._batch = reverb.Client(address), arguments.batch
        self._updates = arguments.select == "prioritised"
        self._thread, self._pending = ThreadPoolExecutor(1), list[Future]()
        self._rng = np.random.default_rng(arguments.seed)

    def sample(self) -> int:
        """A batch, and perhaps its new priorities; returns the number of its items."""
        batch = next(self._batches)
        if self._updates:
            updates = dict(zip(batch.info.key.numpy().tolist(), self._rng.random(self._batch).tolist(), strict=True))
            if len(self._pending) > 1:
                self._pending.pop(0).result()
            self._pending.append(self._thread.submit(self._client.mutate_priorities, TABLE, updates))
        return self._batch

    def finish(self) -> None:
        """Wait until all priorities are set."""
        for update in self._pending:
            update.result()
        self._pending.clear()


@contextmanager
def sequences(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Windows of frames."""
    with _server(arguments) as (
        address,
        _,
    ):
        _fill(address, arguments, _sequences(arguments, arguments.rows))
        reader = Reader(address, arguments)
        yield lambda: {"items_per_second": speed(reader.sample, arguments.seconds, finish=reader.finish)}


@contextmanager
def transitions(arguments: argparse.Namespace) -> Iterator[Measure]:
    """CartPole transitions, each an item and a chunk of all its columns."""
    with server_of(arguments.server, workload.TRANSITION, arguments.rows, arguments.select, 1) as (address, _):
        data = workload.transitions(arguments.rows, seed=arguments.seed)
        with reverb.Client(address).writer(1, max_in_flight_items=IN_FLIGHT) as writer:
            for number in range(arguments.rows):
                writer.append({name: column[number] for name, column in data.items()})
                writer.create_item(TABLE, num_timesteps=1, priority=1.0)
        reader = Reader(address, arguments)
        yield lambda: {"items_per_second": speed(reader.sample, arguments.seconds, finish=reader.finish)}


@contextmanager
def insert(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Into a full table, so that an item leaves for each that comes; 32 rows count as one, whatever they make."""
    with _server(arguments) as (
        address,
        _,
    ):
        data = _sequences(arguments, 8192)
        if arguments.grain == "block":
            step, flush = by_block(reverb.Client(address), workload.blocks(data))
        else:
            inserters = inserters_of(address, arguments)
            step = by_step(inserters, data)

            def flush() -> None:
                for inserter in inserters:
                    inserter.finish()

        inserted = 0
        while inserted < arguments.rows // workload.WINDOW:
            inserted += step()
        yield lambda: {"items_per_second": speed(step, arguments.seconds, finish=flush)}


def _inserter(address: str, arguments: argparse.Namespace) -> Callable[[], int]:
    return by_step(inserters_of(address, arguments), _sequences(arguments, 8192))


@contextmanager
def both(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Sampling here while another process inserts, step by step."""
    with _server(arguments) as (
        address,
        _,
    ):
        _fill(address, arguments, _sequences(arguments, arguments.rows))
        reader = Reader(address, arguments)
        with Feeder(_inserter, address, argparse.Namespace(**vars(arguments) | {"streams": 1})) as feeder:
            yield lambda: mixed(reader.sample, arguments.seconds, feeder)


def _resident(process: int) -> int:
    """Bytes of a process's memory that are in use."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def resident_bytes(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Growth of the server's process over the last three quarters of the rows."""

    def measure() -> dict[str, float]:
        data = _sequences(arguments, arguments.rows)
        quarter = data["step"].shape[1] // 4
        table = (workload.ROW, _items(arguments), arguments.select, workload.WINDOW)
        with server_of("apart", *table) as (address, process):
            before = _fill(address, arguments, {name: column[:, :quarter] for name, column in data.items()})
            small = _resident(process)
            after = _fill(address, arguments, {name: column[:, quarter:] for name, column in data.items()})
            time.sleep(1)
            grown = _resident(process) - small
            del before, after
        return {"bytes_per_step": grown / (arguments.rows * 3 / 4)}

    yield measure


if __name__ == "__main__":
    parser = flags(__doc__)
    parser.add_argument("--server", choices=["apart", "inside"], default="apart")
    parser.add_argument("--writer", choices=["structured", "trajectory"], default="trajectory")
    parser.add_argument("--chunk", type=int, help="rows of a chunk, trajectory writer only; 0: automatic")
    stores = {"sequences": sequences, "insert": insert, "mixed": both, "transitions": transitions}
    main("reverb", stores | {"bytes": resident_bytes}, parser)
