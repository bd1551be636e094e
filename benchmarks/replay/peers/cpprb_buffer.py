"""cpprb 11: one array a column in this process, with a segment tree in C++; the learner and the store are one process.

Settings: an entry is a whole window of 32 steps (cpprb has no windows over steps, so `--offsets any` is not possible
without storing every row 32 times); `PrioritizedReplayBuffer(alpha=0.6)`, `sample(beta=0.4)` as in its examples,
`update_priorities` after every prioritised batch. Inserting: one environment step of every stream at a time goes into a
local array, as its own N-step and Ape-X examples have it, and `add` takes each window when it is full; in blocks, `add`
takes the windows of all streams at once. `mixed` uses `MPReplayBuffer` and `MPPrioritizedReplayBuffer`, its stores in
shared memory with one learner, and inserts in another process. Windows never cross the end of an episode.
"""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from cpprb import MPPrioritizedReplayBuffer, MPReplayBuffer, PrioritizedReplayBuffer, ReplayBuffer

from benchmarks.replay.peers import workload
from benchmarks.replay.peers.rounds import Feeder, Measure, flags, main, mixed, speed

ALPHA, BETA = 0.6, 0.4


def _buffer(size: int, columns: dict, lead: tuple[int, ...], select: str, *, shared: bool = False) -> ReplayBuffer:
    entries = {
        name: {"dtype": np.dtype(dtype), "shape": (*lead, *shape) or 1} for name, (dtype, shape) in columns.items()
    }
    if shared:
        context = multiprocessing.get_context("spawn")
        if select == "uniform":
            return MPReplayBuffer(size, entries, ctx=context)
        return MPPrioritizedReplayBuffer(size, entries, alpha=ALPHA, ctx=context)
    return ReplayBuffer(size, entries) if select == "uniform" else PrioritizedReplayBuffer(size, entries, alpha=ALPHA)


def _sampler(buffer: ReplayBuffer, arguments: argparse.Namespace) -> Callable[[], int]:
    rng = np.random.default_rng(arguments.seed)

    def sample() -> int:
        if arguments.select == "uniform":
            buffer.sample(arguments.batch)
        else:
            chosen = buffer.sample(arguments.batch, beta=BETA)["indexes"]
            buffer.update_priorities(chosen, rng.random(arguments.batch))
        return arguments.batch

    return sample


def _windows(arguments: argparse.Namespace, rows: int) -> dict[str, np.ndarray]:
    if arguments.offsets != "aligned":
        raise SystemExit("cpprb has no windows at any offset: pass --offsets aligned")
    return workload.blocks(
        workload.sequences(rows, streams=arguments.streams, seed=arguments.seed, frames=arguments.frames)
    )


@contextmanager
def sequences(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Whole windows, one an entry."""
    windows = _windows(arguments, arguments.rows)
    buffer = _buffer(len(windows["step"]), workload.ROW, (workload.WINDOW,), arguments.select)
    buffer.add(**windows)
    sample = _sampler(buffer, arguments)
    yield lambda: {"items_per_second": speed(sample, arguments.seconds)}


@contextmanager
def transitions(arguments: argparse.Namespace) -> Iterator[Measure]:
    """CartPole transitions."""
    buffer = _buffer(arguments.rows, workload.TRANSITION, (), arguments.select)
    buffer.add(**workload.transitions(arguments.rows, seed=arguments.seed))
    sample = _sampler(buffer, arguments)
    yield lambda: {"items_per_second": speed(sample, arguments.seconds)}


def _by_step(buffer: ReplayBuffer, data: dict[str, np.ndarray]) -> Callable[[], int]:
    """Rows of all streams go into local windows, which are added when they are full."""
    streams, each = data["step"].shape
    local = {
        name: np.empty((streams, workload.WINDOW, *column.shape[2:]), column.dtype) for name, column in data.items()
    }
    position = 0

    def step() -> int:
        nonlocal position
        for place in range(workload.WINDOW):
            for name, column in data.items():
                local[name][:, place] = column[:, position]
            position = (position + 1) % each
        buffer.add(**local)
        return streams

    return step


def _by_block(buffer: ReplayBuffer, windows: dict[str, np.ndarray], count: int) -> Callable[[], int]:
    position, total = 0, len(windows["step"])

    def step() -> int:
        nonlocal position
        position = position if position + count <= total else 0
        buffer.add(**{name: column[position : position + count] for name, column in windows.items()})
        position += count
        return count

    return step


@contextmanager
def insert(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Into a full store, so that something leaves for everything that comes."""
    buffer = _buffer(arguments.rows // workload.WINDOW, workload.ROW, (workload.WINDOW,), arguments.select)
    data = workload.sequences(8192, streams=arguments.streams, seed=arguments.seed, frames=arguments.frames)
    by_step = arguments.grain == "step"
    step = _by_step(buffer, data) if by_step else _by_block(buffer, workload.blocks(data), arguments.streams)
    while buffer.get_stored_size() < buffer.get_buffer_size():
        step()
    yield lambda: {"items_per_second": speed(step, arguments.seconds)}


def _inserter(buffer: ReplayBuffer, arguments: argparse.Namespace) -> Callable[[], int]:
    return _by_block(buffer, _windows(arguments, 8192), 1)


@contextmanager
def both(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Sampling here while another process inserts windows, one an `add`."""
    windows = _windows(arguments, arguments.rows)
    buffer = _buffer(len(windows["step"]), workload.ROW, (workload.WINDOW,), arguments.select, shared=True)
    buffer.add(**windows)
    sample = _sampler(buffer, arguments)
    with Feeder(_inserter, buffer, arguments) as feeder:
        yield lambda: mixed(sample, arguments.seconds, feeder)


if __name__ == "__main__":
    main(
        "cpprb",
        {"sequences": sequences, "insert": insert, "mixed": both, "transitions": transitions},
        flags(__doc__),
    )
