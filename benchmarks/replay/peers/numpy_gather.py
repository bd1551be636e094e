"""Plain numpy: the physical limit. One array a column, blocks copied into a batch that is used again; no store at all.

`sequences` copies 64 windows of 32 rows from starts that are drawn uniformly (with prioritised it is the same: there is
no selection): a slice assignment each, or with aligned offsets one `take` into the batch. `transitions` takes 256 rows
of each column by index. `insert` copies a row, or a whole window, of every stream into a ring; `bytes` is the size of
a row.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.replay.peers import workload
from benchmarks.replay.peers.rounds import Measure, flags, main, speed


@contextmanager
def sequences(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Windows out of one long array a column."""
    data = workload.sequences(arguments.rows, streams=arguments.streams, seed=arguments.seed, frames=arguments.frames)
    rows = {name: column.reshape(-1, *column.shape[2:]) for name, column in data.items()}
    windows = {name: column.reshape(-1, workload.WINDOW, *column.shape[1:]) for name, column in rows.items()}
    batch = {name: np.empty((arguments.batch, *column.shape[1:]), column.dtype) for name, column in windows.items()}
    rng = np.random.default_rng(arguments.seed)

    def anywhere() -> int:
        starts = rng.integers(0, arguments.rows - workload.WINDOW, arguments.batch).tolist()
        for name, column in rows.items():
            target = batch[name]
            for place, start in enumerate(starts):
                target[place] = column[start : start + workload.WINDOW]
        return arguments.batch

    def aligned() -> int:
        chosen = rng.integers(0, len(windows["step"]), arguments.batch)
        for name, column in windows.items():
            np.take(column, chosen, axis=0, out=batch[name], mode="clip")
        return arguments.batch

    sample = aligned if arguments.offsets == "aligned" else anywhere
    yield lambda: {"items_per_second": speed(sample, arguments.seconds)}


@contextmanager
def transitions(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Rows by index."""
    rows = workload.transitions(arguments.rows, seed=arguments.seed)
    rng = np.random.default_rng(arguments.seed)

    def sample() -> int:
        chosen = rng.integers(0, arguments.rows, arguments.batch)
        return len({name: column.take(chosen, axis=0, mode="clip") for name, column in rows.items()}["action"])

    yield lambda: {"items_per_second": speed(sample, arguments.seconds)}


@contextmanager
def insert(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Whole windows, or one row of every stream at a time, into a ring."""
    data = workload.sequences(8192, streams=arguments.streams, seed=arguments.seed, frames=arguments.frames)
    each, length = data["step"].shape[1], arguments.rows // arguments.streams
    ring = {
        name: np.zeros((arguments.streams, length, *column.shape[2:]), column.dtype) for name, column in data.items()
    }
    rows = 1 if arguments.grain == "step" else workload.WINDOW
    position = 0

    def step() -> int:
        nonlocal position
        for _ in range(workload.WINDOW // rows):
            source, target = position % each, position % length
            for name, column in data.items():
                ring[name][:, target : target + rows] = column[:, source : source + rows]
            position += rows
        return arguments.streams

    yield lambda: {"items_per_second": speed(step, arguments.seconds)}


@contextmanager
def raw_bytes(arguments: argparse.Namespace) -> Iterator[Measure]:
    """What a step of a sequence takes as it is."""
    yield lambda: {"bytes_per_step": workload.row_bytes(workload.ROW)}


if __name__ == "__main__":
    stores = {"sequences": sequences, "transitions": transitions, "insert": insert, "bytes": raw_bytes}
    main("numpy", stores, flags(__doc__))
