"""What a row costs on its way through the store: written, committed, drawn, gathered, beside `memcpy` of its bytes.

python -m benchmarks.replay.rows

Blocks of 8 streams with 32 and 128 rows each, of CartPole's columns (four numbers and what every row has) and with
frames of 84 x 84, in a table that is read once, as PPO's: each pass writes a block as an actor does, step by step,
commits it, draws a batch of it and gathers that. "in process" the shard is an ordinary object; "by block" there are the
same rows in one call instead of one for each step; "over Ray" the shard is a process of its own, in turns (lag 0), or
with eight blocks written before eight batches are read ("ahead"). The shard keeps its journal everywhere, and archives
no rows.

`memcpy` is a copy of as many bytes as a block has, in one call, from a few blocks to a ring of as many bytes as the
store's segments have. All cases measure one round each in turn; tables tell medians over rounds.
Microseconds are those of the thread that writes and reads; over Ray the processor's time of the shard's process is told
beside them.
"""

import json
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
import tyro

from benchmarks.replay.rows_table import STAGES, Round, Size, markdown
from benchmarks.timed import cpu_seconds
from cluster.assembly import SEGMENT_BLOCKS, SEGMENT_BYTES
from cluster.embedded import start_ray
from cluster.shard_handle import RayShard
from cluster.store import ShardProcess
from replay.messages import Commit, Draw
from replay.opening import Places, open_shard
from replay.sampler import Sampler
from replay.schema import Column, Schema
from replay.stopwatch import Stopwatch
from replay.table import Table
from replay.writer import Writer

Way = Literal["in process", "in process, by block", "over Ray", "over Ray, ahead"]
WAYS: tuple[Way, ...] = ("in process", "in process, by block", "over Ray", "over Ray, ahead")
STREAMS, AHEAD, SOURCES, WARM = 8, 8, 4, 40
"""Streams of a block, blocks written ahead, different blocks that are written, blocks before the first round."""
SEGMENTS = 3
"""That are in use: written, read, and waiting to be written again."""
OBSERVATIONS = {"CartPole": Column("float32", (4,)), "84x84 frames": Column("uint8", (84, 84))}
Columns = dict[str, np.ndarray]


def main(
    *,
    rows: tuple[int, ...] = (32, 128),
    ways: tuple[Way, ...] = WAYS,
    seconds: float = 0.3,
    rounds: int = 15,
    report: Path = Path("docs/results/rows"),
) -> None:
    """Measure all cases in turns, and print the tables.

    Args:
        rows: of a block, of each stream.
        ways: that rows go.
        seconds: of each case in a round.
        rounds: of all cases.
        report: folder for `rows.json` and `tables.md`.
    """
    cases = [(kind, count, way) for kind in OBSERVATIONS for count in rows for way in ways]
    try:
        with ExitStack() as kept:
            routes = [kept.enter_context(opened(*case)) for case in cases]
            found: list[list[Round]] = [[] for _ in routes]
            for number in range(rounds):
                for place in range(len(routes)):
                    which = (place + number) % len(routes)
                    found[which].append(routes[which].measure(seconds))
                print(f"round {number + 1} of {rounds}", flush=True)
            results = [(route.size, route.way, each) for route, each in zip(routes, found, strict=True)]
    finally:
        ray.shutdown()
    report.mkdir(parents=True, exist_ok=True)
    lines = [{**vars(size), "way": way, "rounds": [vars(each) for each in each_of]} for size, way, each_of in results]
    (report / "rows.json").write_text(json.dumps(lines) + "\n")
    told = markdown(results)
    (report / "tables.md").write_text(told + "\n")
    print(told)


@dataclass
class Route:
    """A store with a writer and a reader in this thread.

    Args:
        size: of its blocks, and of what passes.
        way: that rows go.
        writer: of all streams.
        sampler: of the one shard.
        blocks: that are written in turn, (streams, rows, ...) each.
        pid: of the shard's process; 0: it is in this one.
        memcpy: copies as many bytes as a block has.
    """

    size: Size
    way: Way
    writer: Writer
    sampler: Sampler
    blocks: Sequence[Columns]
    pid: int
    memcpy: Callable[[], None]
    step: int = 0

    @property
    def ahead(self) -> int:
        """Blocks that are written before as many batches are read."""
        return AHEAD if self.way == "over Ray, ahead" else 1

    def measure(self, seconds: float) -> Round:
        """Passes for so long, and copies for a quarter of it before and after."""
        watch = Stopwatch(STAGES)
        copies = _timed(self.memcpy, seconds / 8)
        shard, here, first = self._shards_seconds(), time.process_time(), self.step
        until = time.perf_counter() + seconds
        watch.lap("write")
        while time.perf_counter() < until:
            self.go(watch)
        shard, here = self._shards_seconds() - shard, time.process_time() - here
        copies += _timed(self.memcpy, seconds / 8)
        each = 1e6 / ((self.step - first) * self.size.streams * self.size.rows)
        stages = {stage: taken * each for stage, taken in watch.take().items()}
        copied = 1e6 * float(np.median(copies)) / (self.size.streams * self.size.rows)
        return Round(stages, copied, here * each, shard * each if self.pid else None)

    def _shards_seconds(self) -> float:
        """Of the processor, so far; 0 where the shard has no process of its own."""
        return cpu_seconds(self.pid) if self.pid else 0.0

    def go(self, watch: Stopwatch) -> None:
        """Write and commit, then draw and gather, as many blocks."""
        for block in range(self.ahead):
            self._write(self.blocks[(self.step + block) % len(self.blocks)])
            watch.lap("write")
            opened = {"observation": self.blocks[0]["observation"][:, 0]}
            self.writer.commit(opened, version=self.step + block)
            watch.lap("commit")
        for _ in range(self.ahead):
            self.sampler.read(self.step)
            watch.lap("draw", self.sampler.moments["wait"])
            watch.lap("gather")
            self.step += 1

    def _write(self, block: Columns) -> None:
        if self.way == "in process, by block":
            self.writer.extend(block)
            return
        for row in range(self.size.rows):
            self.writer.append({name: values[:, row] for name, values in block.items()})


def _timed(action: Callable[[], None], seconds: float) -> list[float]:
    """Seconds of each of several calls that take so long together, at least three."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


@contextmanager
def opened(kind: str, rows: int, way: Way) -> Iterator[Route]:
    """A store that has been used for a while."""
    schema = Schema.of_rows({"observation": OBSERVATIONS[kind]}, Column("int64"), {"value": Column("float32")})
    capacity = 2 * AHEAD * STREAMS
    tables = {"fresh": Table(batch=STREAMS, window=rows + 1, stride=rows, per_stream=1, capacity=capacity)}
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="benchmark-rows-") as folder, ExitStack() as kept:
        places = Places(live=Path(folder) / "live", kept=Path(folder) / "kept")
        places.live.mkdir()
        shard, pid = _shard(tables, places, schema, way, kept)
        weighed = Weighed(shard)
        segment_rows = max(SEGMENT_BLOCKS * rows, SEGMENT_BYTES // (schema.row_bytes * STREAMS))
        writer = Writer(
            "writer",
            schema,
            streams=range(STREAMS),
            folder=places.live,
            rows_per_segment=segment_rows,
            commit=weighed.commit,
        )
        kept.callback(writer.close)
        sampler = Sampler(schema, tables, [weighed])
        kept.callback(sampler.close)
        size = Size(kind, STREAMS, rows, schema.row_bytes)
        memcpy = copier(STREAMS * rows * schema.row_bytes, SEGMENTS * segment_rows // rows)
        route = Route(size, way, writer, sampler, made(schema, rows), pid, memcpy)
        for _ in range(WARM // route.ahead):
            route.go(Stopwatch(STAGES))
        route.size = replace(size, **weighed.bytes)
        yield route


class Weighed:
    """A shard (`ShardLike`), the first of whose messages of each kind is weighed.

    Attributes:
        bytes: of a commit and of a draw, pickled.
    """

    def __init__(self, shard: Any) -> None:
        self._shard, self.bytes = shard, dict[str, int]()

    def commit(self, commit: Commit) -> None:
        """Pass it on."""
        if "commit" not in self.bytes:
            self.bytes["commit"] = len(pickle.dumps(commit, protocol=5))
        self._shard.commit(commit)

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        """Ask for it."""
        found = self._shard.draw(step, rank, ranks)
        if "draw" not in self.bytes:
            self.bytes["draw"] = len(pickle.dumps(found, protocol=5))
        return found

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        """Pass them on."""
        self._shard.prioritise(table, ids, priorities)


def _shard(tables: dict[str, Table], places: Places, schema: Schema, way: Way, kept: ExitStack) -> tuple[Any, int]:
    """A shard, and the id of its process; 0: this one."""
    if way.startswith("in process"):
        shard, recorder = open_shard(tables, places, shards=1, index=0, seed=0)
        kept.callback(recorder.close)
        kept.callback(shard.close)
        return shard, 0
    start_ray("")
    process = ray.remote(num_cpus=0, max_concurrency=1000)(ShardProcess).remote(
        tables, places, schema, shards=1, index=0, seed=0
    )
    kept.callback(lambda: ray.get(process.close.remote()))
    return RayShard(process, "shard", ahead=AHEAD if way == "over Ray, ahead" else 0), ray.get(process.pid.remote())


def made(schema: Schema, rows: int) -> list[Columns]:
    """Blocks of a few episodes, other ones each."""
    rng = np.random.default_rng(0)

    def column(name: str, kind: Column) -> np.ndarray:
        shape = (STREAMS, rows, *kind.shape)
        if name == "mask":
            return np.ones(shape, kind.dtype)
        return rng.integers(0, 2 if name in ("terminated", "truncated") else 100, shape).astype(kind.dtype)

    return [{name: column(name, kind) for name, kind in schema.columns.items()} for _ in range(SOURCES)]


@cache
def copier(size: int, targets: int) -> Callable[[], None]:
    """Copies so many bytes from one ring of blocks to another of so many blocks."""
    sources = [np.ones(size, np.uint8) for _ in range(SOURCES)]
    pairs = zip(cycle(sources), cycle([np.ones(size, np.uint8) for _ in range(targets)]))

    def copy() -> None:
        source, target = next(pairs)
        np.copyto(target, source)

    return copy


if __name__ == "__main__":
    tyro.cli(main)
