"""The replay store's shards as Ray processes. Nothing here knows torch: these are up long before the others."""

import asyncio
import os
import pickle
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.busy import BusyLoop
from cluster.histograms import Histograms
from cluster.logs import log_to
from cluster.vitals import Rate, Vitals, of_this_process
from cluster.weights import Stopped
from replay.messages import Commit, Draw
from replay.opening import Places, open_shard
from replay.remote import Receiver, Trajectory
from replay.sampler import Arrays, Gatherer
from replay.schema import Schema
from replay.shard import CommitLost, Shard
from replay.table import Table

Priority = tuple[str, np.ndarray, np.ndarray]
"""A table, ids of its windows, and their new priorities."""


class Superseded(RuntimeError):
    """A learner that was only cut off, not dead, and has been replaced: nothing is done for it any more."""


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
        behind: steps that a learner may be behind its reader, which reads before their turn: so many more draws are
            kept, for a learner that takes the place of one that died.
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
        behind: int = 0,
        log: Path | None = None,
    ) -> None:
        if log is not None:
            log_to(log)
        self._shard, self._recorder = open_shard(tables, places, shards=shards, index=index, seed=seed)
        self._receiver = Receiver(schema, places.live, self._shard)
        self._kept = _KeepsDraws(self._shard, behind)
        self._gatherer = Gatherer(schema, tables, self._kept, shards=shards)
        self._live = places.live
        self._changed = asyncio.Condition()
        self._stopped = False
        self._failure: Exception | None = None
        self._by_priority = any(table.by_priority for table in tables.values())
        self._asked: dict[int, int] = {}  # by rank, the last draw that it asked for
        self._life = 0  # of the learners
        self._rate, self._busy = Rate(), BusyLoop()
        self._batches = {
            name: table.batch_windows / shards for name, table in tables.items() if table.reads_once
        }  # this shard's share
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

    async def draw(
        self, steps: range, rank: int, ranks: int, done: int, priorities: bytes = b"", life: int = 0
    ) -> bytes:
        """Answer draws in a row, the first once all tables can, the others as far as they can by then.

        Args:
            steps: which draws.
            rank: of the asking reader among `ranks`.
            ranks: how many share every draw.
            done: the rank has read all draws before this one.
            priorities: that the rank has found meanwhile.
            life: of the learners; counts how often they were replaced.

        Returns:
            The draws, pickled: Ray would handle each of their many small arrays by itself, at ten times the cost.

        Raises:
            Superseded: the asking learner has been replaced.
        """
        self._fence_learners(life)
        self._take(steps[-1], rank, priorities)
        await self._ready(steps[0], ranks)
        further = sum(self._all_asked(step, ranks) for step in steps[1:])
        draws = [self._kept.draw(steps[0], rank, ranks, done=done, further=further)]
        for step in steps[1 : 1 + further]:
            if self._shard.missing(step):
                break
            draws.append(self._kept.draw(step, rank, ranks, done=done))
        await self._tell()
        return pickle.dumps(draws, protocol=5)

    async def rows(self, step: int, rank: int, ranks: int, priorities: bytes = b"", life: int = 0) -> dict[str, Arrays]:
        """Answer a learner on another machine with the rows themselves; see `draw`."""
        self._fence_learners(life)
        self._take(step, rank, priorities)
        await self._ready(step, ranks)
        rows = self._gatherer.rows(step, rank, ranks)
        await self._tell()
        return rows

    async def limit(self, table: str, limits: dict[str, Any]) -> None:
        """Change a table's limits; those who wait for them look again."""
        self._shard.limit(table, limits)
        await self._tell()

    async def fence(self, streams: Sequence[int], writer: str, former: str | None) -> int:
        """Give the streams of an actor that is dead or done to another one's writer: see `Shard.fence`.

        What the former writer left that the shard has not heard of is removed; None: nobody died.
        """
        commits = self._shard.fence(streams, writer)
        self._receiver.leave(streams)
        if former is not None:
            self._shard.segments.remove_unheard(former, self._live)
        self._failure = None  # it may be of a commit that came after one that died with the actor
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

    async def load(self, done: int) -> tuple[float, float | None]:
        """How busy the process was since it was last asked, and how many draws are ahead of the learners.

        Args:
            done: draws that learners have finished with.

        Returns:
            A share of wall time, and what is formed or could be of draws of the tables that are read once; None: no
            table is.
        """
        held = [self._shard.holdings[name].held / windows for name, windows in self._batches.items()]
        return self._busy.share(), max(0, self._shard.drawn - done) + min(held) if held else None

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

    def _fence_learners(self, life: int) -> None:
        if life < self._life:
            raise Superseded(f"learners of life {life} ask, those of life {self._life} took their place")
        self._life = life

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


class _KeepsDraws:
    """A shard that keeps some more draws than those which its readers have not finished with."""

    def __init__(self, shard: Shard, count: int) -> None:
        self._shard, self._count, self.prioritise = shard, count, shard.prioritise

    def draw(self, step: int, rank: int = 0, ranks: int = 1, *, done: int | None = None, further: int = 0) -> Draw:
        """As `Shard.draw`."""
        done = max(0, (step if done is None else done) - self._count)
        return self._shard.draw(step, rank, ranks, done=done, further=further)
