"""The replay store's shards as Ray processes. Nothing here knows torch: these are up long before the others."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from cluster.weights import Stopped, fetch
from replay.messages import Commit, Draw
from replay.shard import Shard
from replay.table import Table


class ShardProcess:
    """A shard that lets its callers wait (an async Ray actor)."""

    def __init__(self, tables: Mapping[str, Table], *, shards: int, index: int, seed: int) -> None:
        self._shard = Shard(tables, shards=shards, index=index, seed=seed)
        self._changed = asyncio.Condition()
        self._stopped = False

    async def commit(self, commit: Commit) -> None:
        """Take rows in at once; return when there is room for more, so that an actor that runs ahead waits."""
        self._shard.commit(commit)
        await self._tell()
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or self._shard.admits())

    async def draw(self, step: int, rank: int, ranks: int) -> Draw:
        """Answer a draw once all tables can."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or not self._shard.missing(step))
        if self._shard.missing(step):
            raise Stopped("the run is being stopped")
        draw = self._shard.draw(step, rank, ranks)
        await self._tell()
        return draw

    async def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    async def missing(self, step: int) -> str:
        """What a draw still waits for, as a sentence."""
        return self._shard.missing(step)

    async def statistics(self) -> dict[str, float]:
        """Gauges of the shard."""
        return self._shard.statistics()

    async def stop(self) -> None:
        """Send everybody home who waits here."""
        self._stopped = True
        await self._tell()

    async def close(self) -> None:
        """Remove the segments."""
        self._shard.close()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class RayShard:
    """A shard as actors and learners in other processes see it.

    Args:
        process: handle of a `ShardProcess`.
        name: for messages.
        patience: seconds that a draw or a commit may wait.
    """

    def __init__(self, process: Any, name: str, *, patience: float = 600.0) -> None:
        self._process, self._name, self._patience = process, name, patience

    def commit(self, commit: Commit) -> None:
        """Hand over committed rows; returns when there is room for more."""
        otherwise = f"but {self._name} had no room for more rows: no learner draws"
        fetch(self._process.commit.remote(commit), seconds=self._patience, otherwise=otherwise)

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Item references of a learner step; waits for them."""
        try:
            draw = self._process.draw.remote(step, rank, ranks)
            return fetch(draw, seconds=self._patience, otherwise=f"but {self._name} could not answer")
        except TimeoutError as error:
            missing = fetch(self._process.missing.remote(step), seconds=10, otherwise=f"but {self._name} is stuck")
            raise TimeoutError(f"{error}: {missing}") from error
