"""Reverb's server, and its three ways to insert."""

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import reverb
import tensorflow as tf

from benchmarks.replay.peers import workload

TABLE, ALPHA, IN_FLIGHT = "replay", 0.6, 64
Row = dict[str, np.ndarray]


def table_of(columns: dict, size: int, select: str, window: int) -> reverb.Table:
    """A table of items of `window` rows of some columns."""
    return reverb.Table(
        TABLE,
        sampler=reverb.selectors.Prioritized(ALPHA) if select == "prioritised" else reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=size,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature={name: tf.TensorSpec((window, *shape), dtype) for name, (dtype, shape) in columns.items()},
    )


def _serve(table: tuple, port: object) -> None:
    server = reverb.Server([table_of(*table)], port=None)
    port.send(server.port)
    port.recv()


@contextmanager
def server_of(place: str, *table: object) -> Iterator[tuple[str, int]]:
    """Address and process id of a server that holds one table."""
    if place == "inside":
        server = reverb.Server([table_of(*table)], port=None)
        try:
            yield f"localhost:{server.port}", os.getpid()
        finally:
            server.stop()
        return
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(table, there), daemon=True)
    process.start()
    try:
        yield f"localhost:{here.recv()}", process.pid
    finally:
        here.send("stop")
        process.join(10)


class TrajectoryInserter:
    """Steps of one environment; items are built in Python."""

    def __init__(self, client: reverb.Client, *, stride: int, chunk: int) -> None:
        self._writer, self._stride = client.trajectory_writer(num_keep_alive_refs=workload.WINDOW), stride
        for name in workload.ROW if chunk else ():
            self._writer.configure((name,), num_keep_alive_refs=workload.WINDOW, max_chunk_length=chunk)

    def append(self, row: Row, *, first: bool) -> None:
        """One step, perhaps the first of an episode."""
        if first and self._writer.episode_steps:
            self._writer.end_episode()
        self._writer.append(row)
        if (self._writer.episode_steps - workload.WINDOW) % self._stride == 0:
            if self._writer.episode_steps >= workload.WINDOW:
                window = {name: column[-workload.WINDOW :] for name, column in self._writer.history.items()}
                self._writer.create_item(TABLE, priority=1.0, trajectory=window)
            self._writer.flush(block_until_num_items=IN_FLIGHT)

    def finish(self) -> None:
        """Wait until the server has everything."""
        self._writer.flush()


class StructuredInserter:
    """Steps of one environment; items are built in C++."""

    def __init__(self, client: reverb.Client, *, stride: int) -> None:
        condition = reverb.structured_writer.Condition
        conditions = [condition.step_index() >= workload.WINDOW - 1]
        if stride > 1:
            conditions.append(condition.steps_since_applied() >= stride)
        pattern = reverb.structured_writer.pattern_from_transform(
            dict.fromkeys(workload.ROW), lambda step: {name: step[name][-workload.WINDOW :] for name in workload.ROW}
        )
        config = reverb.structured_writer.create_config(pattern, TABLE, conditions)
        self._writer, self._steps = client.structured_writer([config]), 0

    def append(self, row: Row, *, first: bool) -> None:
        """One step, perhaps the first of an episode."""
        if first and self._steps:
            self._writer.end_episode()
        self._writer.append(row)
        self._steps += 1
        if self._steps % workload.WINDOW == 0:
            self._writer.flush(block_until_num_items=IN_FLIGHT)

    def finish(self) -> None:
        """Wait until the server has everything."""
        self._writer.flush()


def inserters_of(address: str, arguments: argparse.Namespace) -> list[TrajectoryInserter | StructuredInserter]:
    """One for each stream, as the flags say."""
    client, stride = reverb.Client(address), workload.WINDOW if arguments.offsets == "aligned" else 1
    if arguments.writer == "structured":
        return [StructuredInserter(client, stride=stride) for _ in range(arguments.streams)]
    chunk = (
        arguments.chunk if arguments.chunk is not None else (workload.WINDOW if stride > 1 else workload.WINDOW // 2)
    )
    return [TrajectoryInserter(client, stride=stride, chunk=chunk) for _ in range(arguments.streams)]


def by_step(inserters: list, data: dict[str, np.ndarray]) -> Callable[[], int]:
    """A row of every stream at a time, until each has WINDOW more rows."""
    streams, each = data["step"].shape
    position = 0

    def step() -> int:
        nonlocal position
        for _ in range(workload.WINDOW):
            for stream, inserter in enumerate(inserters):
                row = {name: column[stream, position] for name, column in data.items()}
                inserter.append(row, first=position == 0 or row["step"] == 0)
            position = (position + 1) % each
        return streams

    return step


def by_block(client: reverb.Client, windows: dict[str, np.ndarray]) -> tuple[Callable[[], int], Callable[[], None]]:
    """A whole window at a time with the older writer, and how to wait for all of them."""
    writer = client.writer(workload.WINDOW, chunk_length=workload.WINDOW, max_in_flight_items=IN_FLIGHT)
    position = 0

    def step() -> int:
        nonlocal position
        writer.append_sequence({name: column[position] for name, column in windows.items()})
        writer.create_item(TABLE, num_timesteps=workload.WINDOW, priority=1.0)
        position = (position + 1) % len(windows["step"])
        return 1

    return step, writer.flush
