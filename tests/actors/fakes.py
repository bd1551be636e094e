"""What an actor is given in these tests: a policy, weights and a writer that need nobody else."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from replay.schema import Column


class CountingPolicy:
    """Action (seed + episode + step) mod 3 of a `Counting` observation; remembers what it was told.

    Its state counts the steps since the episode began, so a missed `first` shows in the `age` column.
    """

    def __init__(self) -> None:
        self.extras: dict[str, Column] = {"age": Column("float32")}
        self.loaded: list[int] = []

    def initial_state(self, n: int) -> np.ndarray:
        return np.full(n, -7.0, dtype=np.float32)

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: np.ndarray,
        first: np.ndarray,
        rng: np.random.Generator,
        *,
        greedy: bool = False,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        age = np.where(first, np.float32(0), state + np.float32(1))
        place = observation["observation.place"] if "observation.place" in observation else observation["observation"]
        action = place.sum(axis=1).astype(np.int64) % 3
        return {"action": action, "log_prob": -1 - action.astype(np.float32), "age": age}, age

    def load(self, version: int, weights: dict[str, np.ndarray]) -> None:
        self.loaded.append(version)


class InMemoryWeights:
    """Versions that exist at once, up to the newest; waiting for a later one calls `wait`, which must publish it."""

    def __init__(self, newest: int = 0, wait: Callable[[int], int] | None = None):
        self.newest, self._wait = newest, wait

    def read(self, *, have: int, at_least: int) -> tuple[int, dict[str, np.ndarray]] | None:
        if self.newest < at_least:
            assert self._wait is not None, f"version {at_least} would never come"
            self.newest = self._wait(at_least)
        return (self.newest, {}) if self.newest > have else None


class RowList:
    """A writer that keeps every stream's rows as a list of dicts."""

    def __init__(self, streams: Sequence[int]):
        self.streams = tuple(streams)
        self.rows: list[list[dict[str, Any]]] = [[] for _ in self.streams]
        self.commits: list[tuple[int, list[int], dict[str, np.ndarray]]] = []

    def append(self, columns: dict[str, np.ndarray], slots: np.ndarray | None = None) -> None:
        wanted = range(len(self.streams)) if slots is None else slots
        for position, slot in enumerate(wanted):
            self.rows[slot].append({name: np.array(column[position]) for name, column in columns.items()})

    def commit(self, open_columns: dict[str, np.ndarray], *, version: int) -> None:
        self.commits.append((version, [len(rows) for rows in self.rows], open_columns))

    def close(self) -> None:
        pass
