"""A shard's process as actors and learners in other processes see it."""

import pickle
from collections import deque
from typing import Any

import numpy as np
import ray

from cluster.store import Priority
from cluster.weights import fetch
from replay.messages import Commit, Draw
from replay.remote import Trajectory
from replay.sampler import Arrays


class RayShard:
    """A shard as actors and learners in other processes of its machine see it.

    Where actors may run ahead of learners, so do calls of replies: an actor goes on while its last commits are under
    way, and the next draws are asked for before their turn.

    Args:
        process: handle of a `ShardProcess`.
        name: for messages.
        patience: seconds that a draw or a commit may wait.
        ahead: commits that may be under way, and draws of a call. The next are asked for as soon as the last have come,
            so up to twice as many are before their turn: they know nothing of the priorities that are sent meanwhile.
            0 where actors and learners take turns.
        life: of the learners; counts how often they were replaced.
    """

    def __init__(self, process: Any, name: str, *, patience: float = 600.0, ahead: int = 0, life: int = 0) -> None:
        self._process, self._name, self._patience, self._ahead = process, name, patience, ahead
        self._life = life
        self._drawn: dict[int, Draw] = {}  # answers that are here
        self._asked: tuple[int, Any] | None = None  # the first draw of the call under way, and its answer to come
        self._committing: deque[Any] = deque()
        self._priorities: list[Priority] = []

    def near(self) -> bool:
        """Whether the shard is on this machine, so that its segments can be written and read in place."""
        asked, otherwise = self._process.node.remote(), f"but {self._name} did not start"
        node = fetch(asked, seconds=self._patience, otherwise=otherwise, of=self._process)
        return node == ray.get_runtime_context().get_node_id()

    def commit(self, commit: Commit) -> None:
        """Hand over committed rows; returns when there is room for more.

        What went wrong with one that was under way is raised by a later one.
        """
        self._committing.append(self._process.commit.remote(commit))
        while len(self._committing) > self._ahead:
            self._wait_for_room(self._committing.popleft())

    def settle(self) -> None:
        """Wait until all commits that are under way have arrived, and there is room for more."""
        while self._committing:
            self._wait_for_room(self._committing.popleft())

    def receive(self, trajectory: Trajectory) -> None:
        """Hand over rows themselves, from another machine; returns when there is room for more."""
        self._wait_for_room(self._process.receive.remote(trajectory))

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Item references of a learner step; waits for them."""
        if step not in self._drawn:
            self._drawn = {}
            asked = self._asked if self._asked and self._asked[0] == step else self._ask(step, rank, ranks, step)
            self._asked = None
            draws = self._wait_for_rows(asked[1], step)
            self._drawn = dict(enumerate(pickle.loads(draws), start=step))
        if self._ahead and not self._asked:
            self._asked = self._ask(max(self._drawn) + 1, rank, ranks, step)
        return self._drawn.pop(step)

    def _ask(self, first: int, rank: int, ranks: int, done: int) -> tuple[int, Any]:
        """Ask for draws in a row: the first of them, and the answer to come."""
        steps = range(first, first + max(1, self._ahead))
        return first, self._process.draw.remote(steps, rank, ranks, done, self._taken(), self._life)

    def rows(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, Arrays]:
        """The rows themselves, gathered by the shard's process."""
        asked = self._process.rows.remote(step, rank, ranks, self._taken(), self._life)
        return self._wait_for_rows(asked, step)

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        """Send priorities with the next draw that is asked for."""
        self._priorities.append((table, ids, priorities))

    def _taken(self) -> bytes:
        taken, self._priorities = self._priorities, []
        return pickle.dumps(taken, protocol=5) if taken else b""

    def _wait_for_room(self, reference: Any) -> None:
        otherwise = f"but {self._name} had no room for more rows: no learner draws"
        fetch(reference, seconds=self._patience, otherwise=otherwise, of=self._process)

    def _wait_for_rows(self, reference: Any, step: int) -> Any:
        try:
            otherwise = f"but {self._name} could not answer"
            return fetch(reference, seconds=self._patience, otherwise=otherwise, of=self._process)
        except TimeoutError as error:
            missing = fetch(self._process.missing.remote(step), seconds=10, otherwise=f"but {self._name} is stuck")
            raise TimeoutError(f"{error}: {missing}") from error


class FarRayShard:
    """A shard as learners on another machine see it: it sends rows, and takes priorities.

    Args:
        shard: the same shard as those on its machine see it.
    """

    def __init__(self, shard: RayShard) -> None:
        self.rows, self.prioritise = shard.rows, shard.prioritise
