"""TorchRL 0.14: memory-mapped tensors in this process, with its segment tree in C++ and its slice samplers.

Settings: `LazyMemmapStorage` in shared memory (its default is the disk's temporary folder). Windows at any offset:
`SliceSampler` and `PrioritizedSliceSampler(alpha=0.6, beta=0.4)`, `slice_len=32`, `traj_key="episode"`,
`strict_length=True` (so no slice crosses the end of an episode), `cache_values=True` (boundaries are found again only
after an insert), `truncated_key=None` and `init_key=None` (with the defaults the prioritised sampler gathers every
batch twice; the uniform one does in any case). Priorities are those of the rows at which slices begin: 64 are updated
after every prioritised batch. Aligned windows: whole windows are the entries, with `PrioritizedSampler`. No prefetch
threads: on two cores they were slower. All cores (`--threads`), torch's own default.

Inserting at any offset: `extend` with one row, or a block of 32, of all streams at once, into a storage of two
dimensions (`ndim=2, dim_extend=1`), the layout for vectorised environments. `mixed` inserts blocks of 32 rows of one
stream in a thread of this process, because priorities cannot be shared between processes.
"""

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, ReplayBuffer
from torchrl.data.replay_buffers.samplers import (
    PrioritizedSampler,
    PrioritizedSliceSampler,
    RandomSampler,
    SliceSampler,
)

from benchmarks.replay.peers import workload
from benchmarks.replay.peers.rounds import Feeder, Measure, flags, main, mixed, speed

ALPHA, BETA = 0.6, 0.4
SLICES = {
    "slice_len": workload.WINDOW,
    "traj_key": "episode",
    "strict_length": True,
    "cache_values": True,
    "truncated_key": None,
    "init_key": None,
}


@contextmanager
def _buffer(arguments: argparse.Namespace, size: int, *, slices: bool, dimensions: int = 1) -> Iterator[ReplayBuffer]:
    """A buffer in shared memory that goes when the round is over."""
    if arguments.select == "uniform":
        sampler = SliceSampler(**SLICES) if slices else RandomSampler()
    elif slices:
        sampler = PrioritizedSliceSampler(size, alpha=ALPHA, beta=BETA, **SLICES)
    else:
        sampler = PrioritizedSampler(size, alpha=ALPHA, beta=BETA)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="peer-replay-", dir=memory) as folder:
        storage = LazyMemmapStorage(size, scratch_dir=folder, ndim=dimensions)
        batch = arguments.batch * (workload.WINDOW if slices else 1)
        yield ReplayBuffer(storage=storage, sampler=sampler, batch_size=batch, dim_extend=dimensions - 1)


def _tensors(data: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(column) for name, column in data.items()}


def _sequences(arguments: argparse.Namespace, rows: int) -> dict[str, np.ndarray]:
    return workload.sequences(rows, streams=arguments.streams, seed=arguments.seed, frames=arguments.frames)


def _sampler(buffer: ReplayBuffer, arguments: argparse.Namespace, *, every: int) -> Callable[[], int]:
    """One batch, and new priorities for every `every`-th of its rows."""

    def sample() -> int:
        if arguments.select == "uniform":
            buffer.sample()
            return arguments.batch
        _, info = buffer.sample(return_info=True)
        index = info["index"]
        rows = index[0] if isinstance(index, tuple) else index
        buffer.update_priority(rows[::every], torch.rand(arguments.batch))
        return arguments.batch

    return sample


def _fill(buffer: ReplayBuffer, arguments: argparse.Namespace) -> None:
    data = _sequences(arguments, arguments.rows)
    if arguments.offsets == "aligned":
        windows = _tensors(workload.blocks(data))
        buffer.extend(TensorDict(windows, [len(windows["step"])]))
        return
    for stream in range(arguments.streams):
        rows = {name: column[stream] for name, column in _tensors(data).items()}
        buffer.extend(TensorDict(rows, [len(rows["step"])]))


def _size(arguments: argparse.Namespace) -> int:
    return arguments.rows // (workload.WINDOW if arguments.offsets == "aligned" else 1)


@contextmanager
def sequences(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Slices at any offset, or whole windows."""
    slices = arguments.offsets == "any"
    with _buffer(arguments, _size(arguments), slices=slices) as buffer:
        _fill(buffer, arguments)
        sample = _sampler(buffer, arguments, every=workload.WINDOW if slices else 1)
        yield lambda: {"items_per_second": speed(sample, arguments.seconds)}


@contextmanager
def transitions(arguments: argparse.Namespace) -> Iterator[Measure]:
    """CartPole transitions."""
    with _buffer(arguments, arguments.rows, slices=False) as buffer:
        data = _tensors(workload.transitions(arguments.rows, seed=arguments.seed))
        buffer.extend(TensorDict(data, [arguments.rows]))
        sample = _sampler(buffer, arguments, every=1)
        yield lambda: {"items_per_second": speed(sample, arguments.seconds)}


def _rows_inserter(buffer: ReplayBuffer, data: dict[str, torch.Tensor], rows: int) -> Callable[[], int]:
    """One row, or a block, of all streams at a time, until every stream has WINDOW more rows."""
    streams, each = data["step"].shape
    position = 0

    def step() -> int:
        nonlocal position
        for _ in range(workload.WINDOW // rows):
            block = {name: column[:, position : position + rows] for name, column in data.items()}
            buffer.extend(TensorDict(block, [streams, rows]))
            position = (position + rows) % (each - workload.WINDOW)
        return streams

    return step


def _windows_inserter(buffer: ReplayBuffer, windows: dict[str, torch.Tensor], count: int) -> Callable[[], int]:
    """Some windows, or blocks of rows of one stream, at a time."""
    position, total = 0, len(windows["step"])

    def step() -> int:
        nonlocal position
        position = position if position + count <= total else 0
        chosen = {name: column[position : position + count] for name, column in windows.items()}
        buffer.extend(TensorDict(chosen, [count]))
        position += count
        return count

    return step


@contextmanager
def insert(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Into a full store, so that something leaves for everything that comes."""
    data = _sequences(arguments, 8192)
    slices = arguments.offsets == "any"
    with _buffer(arguments, _size(arguments), slices=slices, dimensions=2 if slices else 1) as buffer:
        if slices:
            rows = 1 if arguments.grain == "step" else workload.WINDOW
            step = _rows_inserter(buffer, _tensors(data), rows)
            fill = _rows_inserter(buffer, _tensors(data), workload.WINDOW)
        else:
            count = 1 if arguments.grain == "step" else arguments.streams
            step = fill = _windows_inserter(buffer, _tensors(workload.blocks(data)), count)
        for _ in range(arguments.rows // workload.WINDOW // arguments.streams + 1):
            fill()
        yield lambda: {"items_per_second": speed(step, arguments.seconds)}


def _inserter(buffer: ReplayBuffer, arguments: argparse.Namespace) -> Callable[[], int]:
    if arguments.offsets == "aligned":
        return _windows_inserter(buffer, _tensors(workload.blocks(_sequences(arguments, 8192))), 1)
    alone = argparse.Namespace(**vars(arguments) | {"streams": 1})
    rows = {name: column[0] for name, column in _tensors(_sequences(alone, 8192)).items()}
    step = _windows_inserter(buffer, rows, workload.WINDOW)
    return lambda: step() // workload.WINDOW


@contextmanager
def both(arguments: argparse.Namespace) -> Iterator[Measure]:
    """Sampling here while a thread inserts 32 rows at a time."""
    slices = arguments.offsets == "any"
    with _buffer(arguments, _size(arguments), slices=slices) as buffer:
        _fill(buffer, arguments)
        sample = _sampler(buffer, arguments, every=workload.WINDOW if slices else 1)
        with Feeder(_inserter, buffer, arguments, thread=True) as feeder:
            yield lambda: mixed(sample, arguments.seconds, feeder)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # numpy 2 on TorchRL's arrays, at every sample
    parser = flags(__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's")
    torch.set_num_threads(parser.parse_known_args()[0].threads)
    main("torchrl", {"sequences": sequences, "insert": insert, "mixed": both, "transitions": transitions}, parser)
