"""Two learners, each in a process of its own, which all tests that want a pair share: to start one takes seconds."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from learners.group import Group, join, leave
from learners.objective import Batch


class Pair:
    """Calls a function in both processes at once, each time with a group of its own.

    Args:
        folder: where the two find each other.
    """

    def __init__(self, folder: Path) -> None:
        self._pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        # No port that another process could take meanwhile.
        self._addresses = (f"file://{folder}/{number}" for number in count())

    def __call__(self, function: Callable, *arguments: object) -> list:
        """What a function of the group, and of these arguments, returns on each rank."""
        address = next(self._addresses)
        # Each waits for the other in `join`, so one process cannot get both.
        both = [self._pool.submit(as_learner, rank, address, function, *arguments) for rank in range(2)]
        return [one.result() for one in both]

    def close(self) -> None:
        self._pool.shutdown()


def as_learner(rank: int, address: str, function: Callable, *arguments: object) -> Any:
    """A function's result as one of two learners."""
    torch.set_num_threads(1)
    group = join(address, rank, 2, device=torch.device("cpu"), seconds=60)
    try:
        return function(group, *arguments)
    finally:
        leave()


def part_of(batch: Batch, group: Group) -> Batch:
    """A rank's windows, the first four or the rest."""
    return {name: column[:4] if group.rank == 0 else column[4:] for name, column in batch.items()}
