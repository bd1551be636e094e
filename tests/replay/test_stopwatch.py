"""Where time goes: every moment belongs to one stage."""

import time
from threading import Event, Semaphore, Timer
from time import perf_counter

import numpy as np
import pytest

from replay.messages import Draw
from replay.sampler import Prefetch, Sampler
from replay.schema import Column, Schema
from replay.stopwatch import Stopwatch
from replay.table import Table

NAP = 0.05


def test_laps_add_up_to_wall_time() -> None:
    watch = Stopwatch(("work", "idle"))
    time.sleep(NAP)
    watch.lap("idle")  # it starts here
    started = perf_counter()
    for _ in range(100):
        watch.lap("work")
        watch.lap("idle")
    time.sleep(NAP)
    watch.lap("work")
    spent = watch.take()
    assert sum(spent.values()) == pytest.approx(perf_counter() - started, abs=1e-3)
    assert NAP <= spent["work"] < 2 * NAP and spent["idle"] < NAP
    watch.lap("idle")
    assert watch.take()["work"] == 0.0, "what was taken is not counted again"


def test_what_ended_earlier_is_told_afterwards() -> None:
    watch = Stopwatch(("wait", "gather", "rest"))
    watch.lap("rest", 10.0)
    watch.lap("wait", 11.5)
    watch.lap("gather", 12.0)
    watch.lap("wait", 9.0)  # over before the last lap
    watch.lap("rest", 14.0)
    assert watch.take() == {"wait": 1.5, "gather": 0.5, "rest": 2.0}


def test_seconds_move_between_stages_as_far_as_there_are_some() -> None:
    watch = Stopwatch(("update", "reduce"))
    watch.lap("update", 0.0)
    watch.lap("update", 2.0)
    watch.move(0.5, out_of="update", to="reduce")
    watch.move(7.0, out_of="reduce", to="update")
    watch.move(1.0, out_of="update", to="reduce")
    assert watch.take() == {"update": 1.0, "reduce": 1.0}


def test_a_call_in_the_middle_of_a_stage_is_told_apart_even_if_it_fails() -> None:
    watch = Stopwatch(("write", "room"))

    def commit(seconds: float) -> float:
        time.sleep(seconds)
        if seconds == NAP:
            raise OSError("no room")
        return seconds

    send = watch.around(commit, stage="room", before="write")
    watch.lap("write")
    time.sleep(2 * NAP)
    assert send(3 * NAP) == 3 * NAP
    with pytest.raises(OSError, match="no room"):
        send(NAP)
    watch.lap("write")
    spent = watch.take()
    assert spent == {"write": pytest.approx(2 * NAP, abs=NAP), "room": pytest.approx(4 * NAP, abs=NAP)}


class SlowShard:
    """Answers late, without a row in its windows."""

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        time.sleep(2 * NAP)
        return Draw({}, (), (), {})

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        pass


class SlowSampler(Sampler):
    """Gathers slowly, too, and then only while its gate is open."""

    def __init__(self) -> None:
        schema, table = Schema({"mask": Column("uint8", ())}), Table(batch=2, window=4)
        super().__init__(schema, {"fresh": table}, [SlowShard()], buffers=2)
        self.gathers, self.gate = Event(), Event()
        self.gate.set()

    def _fill(self, name: str, draw: Draw, target: object, rows: object) -> None:
        self.gathers.set()
        time.sleep(NAP)
        self.gate.wait()


def spent_on(reader: Sampler | Prefetch, step: int) -> dict[str, float]:
    """What a learner's watch makes of a read."""
    watch = Stopwatch(("between", "wait", "gather", "copy"))
    watch.lap("between")
    reader.read(step)
    for stage, moment in reader.moments.items():
        watch.lap(stage, moment)
    return watch.take()


def test_waiting_for_shards_and_gathering_are_told_apart() -> None:
    sampler = SlowSampler()
    spent = spent_on(sampler, 0)
    assert spent["wait"] >= 2 * NAP and spent["gather"] >= NAP and spent["copy"] == spent["between"] == 0
    sampler.close()


def test_of_what_a_thread_reads_ahead_only_that_counts_for_which_one_waits() -> None:
    sampler, copies, copied = SlowSampler(), iter(range(100)), Semaphore(0)

    def copy(batches: object) -> None:
        time.sleep(NAP)
        if next(copies) == 0:  # what is gathered next waits
            sampler.gate.clear()
            sampler.gathers.clear()
        copied.release()

    ahead = Prefetch(sampler, then=copy)
    spent = spent_on(ahead, 0)
    assert spent["wait"] >= 2 * NAP and spent["gather"] >= NAP and spent["copy"] >= NAP

    assert sampler.gathers.wait(30), "the shard has answered meanwhile"
    Timer(2 * NAP, sampler.gate.set).start()
    spent = spent_on(ahead, 1)
    assert spent["wait"] == 0 and spent["gather"] >= NAP and spent["copy"] >= NAP

    assert all(copied.acquire(timeout=30) for _ in range(3)), "all is done"
    assert sum(spent_on(ahead, 2).values()) < NAP
    ahead.close()
