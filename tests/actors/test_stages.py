"""An actor's wall time: all of it belongs to a stage."""

import time
from time import perf_counter

import numpy as np
import pytest

from actors.actor import STAGES, Actor
from replay.stopwatch import Stopwatch
from tests.actors.fakes import CountingPolicy, InMemoryWeights, RowList
from tests.actors.test_actor_blocks import COUNTING, SEEDS

NAP = 0.02


class Slow(CountingPolicy):
    """Takes a while to act."""

    def act(self, *given, **options):
        time.sleep(NAP)
        return super().act(*given, **options)


class SlowWriter(RowList):
    """Takes a while to write a row, and longer until a commit is taken."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__(range(3))
        self._send = watch.around(lambda version: time.sleep(10 * NAP), stage="room", before="write")

    def append(self, columns, slots=None) -> None:
        time.sleep(NAP)
        super().append(columns, slots)

    def commit(self, open_columns, *, version: int) -> None:
        self._send(version)


def late(version: int) -> int:
    time.sleep(5 * NAP)
    return version


def test_stages_add_up_to_the_wall_time_of_blocks() -> None:
    watch, blocks, rows = Stopwatch(STAGES), 3, 4
    environments = COUNTING.make(len(SEEDS))
    step = environments.step
    environments.step = lambda action: (time.sleep(2 * NAP), step(action))[1]
    actor = Actor(
        Slow(),
        environments,
        SlowWriter(watch),
        InMemoryWeights(0, late),
        name="actor-0",
        seeds=SEEDS,
        rng=np.random.default_rng(0),
        rows=rows,
        max_version_lag=0,
        gamma=0.9,
        watch=watch,
    )
    started, asked, reports = perf_counter(), time.time(), []
    for _ in range(blocks):
        reports.append(actor.collect())
        ended = perf_counter()
        time.sleep(3 * NAP)  # until the driver gives it another
    seconds = {stage: sum(report.seconds[stage] for report in reports) for stage in STAGES}
    assert sum(seconds.values()) == pytest.approx(ended - started, rel=0.02)
    steps = blocks * rows
    assert seconds["inference"] >= steps * NAP and seconds["environment"] >= 2 * steps * NAP
    assert seconds["write"] >= steps * NAP and seconds["room"] >= blocks * 10 * NAP
    assert seconds["wait"] >= 2 * 5 * NAP and seconds["between"] >= 2 * 3 * NAP
    for report in reports:
        assert report.loaded is not None and asked <= report.loaded[0] <= report.loaded[1] <= time.time()
    actor.close()


def test_who_has_the_newest_weights_loads_none() -> None:
    actor = Actor(
        CountingPolicy(),
        COUNTING.make(len(SEEDS)),
        RowList(range(3)),
        InMemoryWeights(5),
        name="actor-0",
        seeds=SEEDS,
        rng=np.random.default_rng(0),
        rows=4,
        max_version_lag=None,
        gamma=0.9,
    )
    assert [actor.collect().loaded is None for _ in range(3)] == [False, True, True]
