"""The replay store's shards as Ray processes. Nothing here knows torch: these are up long before the others."""

import asyncio
import os
import pickle
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.histograms import Histograms
from cluster.logs import log_to
from cluster.vitals import Rate, Vitals, of_this_process
from cluster.weights import Stopped, fetch
from replay.messages import Commit, Draw
from replay.opening import Places, open_shard
from replay.remote import Receiver, Trajectory
from replay.sampler import Arrays, Gatherer
from replay.schema import Schema
from replay.shard import CommitLost
from replay.table import Table

Priority = tuple[str, np.ndarray, np.ndarray]
"""A table, ids of its windows, and their new priorities."""

ORDER_SECONDS = 10.0
"""How long a commit waits for the one before it."""


class ShardProcess:
    """A shard that lets its callers wait (an async Ray actor).

    When it dies, Ray starts another, which becomes the same shard again from its journal and answers the calls that
    were under way: commits that it knows already are ignored, and draws that were formed are given again.

    Args:
        tables: of the store.
        places: of its files.
        schema: of the rows, for those who write or read from another machine.
        shards: how many there are.
        index: of this one.
        seed: of random selections.
        log: where what it prints goes; None: where Ray puts it.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        places: Places,
        schema: Schema,
        *,
        shards: int,
        index: int,
        seed: int,
        log: Path | None = None,
    ) -> None:
        if log is not None:
            log_to(log)
        self._shard, self._recorder = open_shard(tables, places, shards=shards, index=index, seed=seed)
        self._receiver = Receiver(schema, places.live, self._shard)
        self._gatherer = Gatherer(schema, tables, self._shard, shards=shards)
        self._changed = asyncio.Condition()
        self._stopped = False
        self._failure: Exception | None = None
        self._by_priority = any(table.by_priority for table in tables.values())
        self._asked: dict[int, int] = {}  # by rank, the last draw that it asked for
        self._rate = Rate()
        self._priorities: dict[int, list[Priority]] = {}  # by rank, what it found and no draw knows yet

    async def commit(self, commit: Commit) -> None:
        """Take rows in at once; return when there is room for more, so that an actor that runs ahead waits."""
        try:
            await self._note(commit)
        except Exception as error:
            self._failure = error
            await self._tell()
            raise
        await self._room()

    async def _note(self, commit: Commit) -> None:
        deadline = time.monotonic() + ORDER_SECONDS
        while True:
            try:
                self._shard.commit(commit)
                return
            except CommitLost:
                # Ray promises no order among calls that are under way: the missing one may be among them.
                if time.monotonic() > deadline:
                    raise
            async with self._changed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), timeout=1.0)

    async def receive(self, trajectory: Trajectory) -> None:
        """Write and commit the rows of an actor on another machine; return when there is room for more."""
        self._receiver.receive(trajectory)
        await self._room()

    async def draw(self, steps: range, rank: int, ranks: int, done: int, priorities: bytes = b"") -> bytes:
        """Answer draws in a row, the first once all tables can, the others as far as they can by then.

        Args:
            steps: which draws.
            rank: of the asking reader among `ranks`.
            ranks: how many share every draw.
            done: the rank has read all draws before this one.
            priorities: that the rank has found meanwhile.

        Returns:
            The draws, pickled: Ray would handle each of their many small arrays by itself, at ten times the cost.
        """
        self._take(steps[-1], rank, priorities)
        await self._ready(steps[0], ranks)
        further = sum(self._all_asked(step, ranks) for step in steps[1:])
        draws = [self._shard.draw(steps[0], rank, ranks, done=done, further=further)]
        for step in steps[1 : 1 + further]:
            if self._shard.missing(step):
                break
            draws.append(self._shard.draw(step, rank, ranks, done=done))
        await self._tell()
        return pickle.dumps(draws, protocol=5)

    async def rows(self, step: int, rank: int, ranks: int, priorities: bytes = b"") -> dict[str, Arrays]:
        """Answer a learner on another machine with the rows themselves."""
        self._take(step, rank, priorities)
        await self._ready(step, ranks)
        rows = self._gatherer.rows(step, rank, ranks)
        await self._tell()
        return rows

    async def limit(self, table: str, limits: dict[str, Any]) -> None:
        """Change a table's limits; those who wait for them look again."""
        self._shard.limit(table, limits)
        await self._tell()

    async def fence(self, streams: Sequence[int], writer: str) -> int:
        """Give a dead actor's streams to another, see `Shard.fence`; a commit of its that failed is forgotten."""
        commits, self._failure = self._shard.fence(streams, writer), None
        await self._tell()
        return commits

    async def forget(self, before: int) -> None:
        """Nobody will go back to before so many draws."""
        self._recorder.forget(before)

    async def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    async def vitals(self) -> Vitals:
        """How the process is; its rate is that since it was last asked."""
        return of_this_process(rate=self._rate.of(self._shard.statistics()["rows_committed"]), unit="rows/s")

    async def node(self) -> str:
        """The node that the process is on."""
        return ray.get_runtime_context().get_node_id()

    async def missing(self, step: int) -> str:
        """What a draw still waits for, as a sentence."""
        return self._shard.missing(step)

    async def statistics(self) -> dict[str, float]:
        """Gauges of the shard."""
        return self._shard.statistics()

    async def histograms(self) -> Histograms:
        """Of windows' priorities and ages."""
        return self._shard.histograms()

    async def stop(self) -> None:
        """Send everybody home who waits here."""
        self._stopped = True
        await self._tell()

    async def close(self) -> None:
        """Archive what is to be kept, remove the segments."""
        self._receiver.close()
        self._shard.close()
        self._recorder.close()

    async def _room(self) -> None:
        await self._tell()
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or self._shard.admits())

    def _take(self, step: int, rank: int, priorities: bytes) -> None:
        if self._shard.drawn <= step:  # else a call is repeated that this process answered before it was restarted
            self._asked[rank] = step
            self._priorities.setdefault(rank, []).extend(pickle.loads(priorities) if priorities else ())

    def _prioritise(self, found: list[Priority]) -> None:
        """Set priorities, each table's in one go; of a window that is there twice the later one counts."""
        for name in dict.fromkeys(table for table, _, _ in found):
            mine = [(ids, values) for table, ids, values in found if table == name]
            self._shard.prioritise(name, *(np.concatenate(part) for part in zip(*mine, strict=True)))

    def _all_asked(self, step: int, ranks: int) -> bool:
        """Whether nothing more can come that a draw by priority should know: then it does not depend on timing."""
        asked = sum(last >= step for last in self._asked.values())
        return self._shard.drawn > step or not self._by_priority or asked == ranks

    async def _ready(self, step: int, ranks: int) -> None:
        def over() -> bool:
            ready = not self._shard.missing(step) and self._all_asked(step, ranks)
            return ready or self._stopped or self._failure is not None

        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(over)
        if self._shard.drawn <= step:
            self._prioritise([found for rank in sorted(self._priorities) for found in self._priorities[rank]])
            self._priorities.clear()
        if self._shard.missing(step):
            # The actor whose rows were refused may hear of it later than the learner that waits for them.
            raise self._failure or Stopped("the run is being stopped")

    async def _tell(self) -> None:
        self._recorder.tidy()
        async with self._changed:
            self._changed.notify_all()


class RayShard:
    """A shard as actors and learners in other processes of its machine see it.

    Where actors may run ahead of learners, so do calls of replies: an actor goes on while its last commits are under
    way, and the next draws are asked for before their turn.

    Args:
        process: handle of a `ShardProcess`.
        name: for messages.
        patience: seconds that a draw or a commit may wait.
        ahead: commits that may be under way, and draws of a call; 0 where actors and learners take turns. The next are
            asked for when the last have come: up to twice as many know nothing of priorities that are sent meanwhile.
    """

    def __init__(self, process: Any, name: str, *, patience: float = 600.0, ahead: int = 0) -> None:
        self._process, self._name, self._patience, self._ahead = process, name, patience, ahead
        self._drawn: dict[int, Draw] = {}  # answers that are here
        self._asked: tuple[int, Any] | None = None  # the first draw of the call under way, and its answer to come
        self._committing: deque[Any] = deque()
        self._priorities: list[Priority] = []

    def near(self) -> bool:
        """Whether the shard is on this machine, so that its segments can be written and read in place."""
        node = fetch(self._process.node.remote(), seconds=self._patience, otherwise=f"but {self._name} did not start")
        return node == ray.get_runtime_context().get_node_id()

    def commit(self, commit: Commit) -> None:
        """Hand over committed rows; returns when there is room, and raises what went wrong with earlier ones."""
        self._committing.append(self._process.commit.remote(commit))
        while len(self._committing) > self._ahead:
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
            self._drawn = dict(enumerate(pickle.loads(self._wait_for_rows(asked[1], step)), start=step))
        if self._ahead and not self._asked:
            self._asked = self._ask(max(self._drawn) + 1, rank, ranks, step)
        return self._drawn.pop(step)

    def _ask(self, first: int, rank: int, ranks: int, step: int) -> tuple[int, Any]:
        """Ask for draws in a row: the first, and the answer to come. Who reads ahead is still at the step before."""
        steps = range(first, first + max(1, self._ahead))
        return first, self._process.draw.remote(steps, rank, ranks, step - bool(self._ahead), self._taken())

    def rows(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, Arrays]:
        """The rows themselves, gathered by the shard's process."""
        return self._wait_for_rows(self._process.rows.remote(step, rank, ranks, self._taken()), step)

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        """Send priorities with the next draw that is asked for."""
        self._priorities.append((table, ids, priorities))

    def _taken(self) -> bytes:
        taken, self._priorities = self._priorities, []
        return pickle.dumps(taken, protocol=5) if taken else b""

    def _wait_for_room(self, reference: Any) -> None:
        fetch(reference, seconds=self._patience, otherwise=f"but {self._name} had no room for rows: no learner draws")

    def _wait_for_rows(self, reference: Any, step: int) -> Any:
        try:
            return fetch(reference, seconds=self._patience, otherwise=f"but {self._name} could not answer")
        except TimeoutError as error:
            missing = fetch(self._process.missing.remote(step), seconds=10, otherwise=f"but {self._name} is stuck")
            raise TimeoutError(f"{error}: {missing}") from error
