"""Blocks and versions: the lag rule, and a real store at the other end."""

import numpy as np
import pytest
from gymnasium import spaces

from actors.actor import Actor
from actors.environments import Environment
from actors.spaces import columns_of
from replay.sampler import Sampler
from replay.schema import Schema
from replay.shard import Shard
from replay.table import Table
from replay.writer import Writer
from tests.actors.counting import Counting
from tests.actors.fakes import CountingPolicy, InMemoryWeights, RowList
from tests.actors.test_actor_rows import reference

COUNTING = Environment("tests.actors.counting:Counting-v0")
SEEDS = [4, 2, 0]


def make_actor(writer, weights, *, max_version_lag, start_block=0, rows=6) -> Actor:
    return Actor(
        CountingPolicy(),
        COUNTING.make(len(SEEDS)),
        writer,
        weights,
        name="actor-0",
        seeds=SEEDS,
        rng=np.random.default_rng(0),
        rows=rows,
        max_version_lag=max_version_lag,
        gamma=0.9,
        start_block=start_block,
    )


def collect_versions(max_version_lag, *, newest=0, start_block=0, blocks=5) -> tuple[list[int], list[int]]:
    """Versions of the blocks, and which ones had to be waited for."""
    waited: list[int] = []

    def wait(at_least: int) -> int:
        waited.append(at_least)
        return at_least

    weights = InMemoryWeights(newest, wait)
    actor = make_actor(RowList(range(3)), weights, max_version_lag=max_version_lag, start_block=start_block)
    reports = [actor.collect() for _ in range(blocks)]
    assert [report.block for report in reports] == list(range(start_block, start_block + blocks))
    return [report.version for report in reports], waited


def test_without_lag_every_block_waits_for_its_own_version():
    assert collect_versions(0) == ([0, 1, 2, 3, 4], [1, 2, 3, 4])


def test_a_lag_of_one_runs_one_block_ahead():
    assert collect_versions(1) == ([0, 0, 1, 2, 3], [1, 2, 3])


def test_without_a_bound_nothing_is_waited_for():
    assert collect_versions(None) == ([0, 0, 0, 0, 0], [])


def test_a_resumed_run_goes_on_counting():
    assert collect_versions(0, newest=70, start_block=70, blocks=3) == ([70, 71, 72], [71, 72])


def test_the_newest_version_is_taken_even_if_an_older_one_would_do():
    assert collect_versions(1, newest=9, blocks=3) == ([9, 9, 9], [])


def test_weights_are_loaded_once_per_version():
    actor = make_actor(RowList(range(3)), InMemoryWeights(newest=2), max_version_lag=None)
    for _ in range(3):
        actor.collect()
    assert actor._policy.loaded == [2]


def test_weights_that_are_too_old_are_an_error():
    class Impatient(InMemoryWeights):
        def read(self, *, have, at_least):
            return (0, {}) if have < 0 else None

    actor = make_actor(RowList(range(3)), Impatient(), max_version_lag=0)
    actor.collect()
    with pytest.raises(RuntimeError, match="actor-0: block 1 needs weights of version 1 or later, got 0"):
        actor.collect()


def make_schema() -> Schema:
    policy = CountingPolicy()
    observation = columns_of(Counting().observation_space, "observation")
    return Schema.of_rows(observation, columns_of(spaces.Discrete(3), "action")["action"], policy.extras)


def test_every_block_becomes_one_batch_of_the_rows_that_the_environments_made(tmp_path):
    rows, blocks = 6, 4
    tables = {"fresh": Table(batch=3, window=rows + 1, stride=rows, select="fifo", max_lag=0)}
    schema, shard = make_schema(), Shard(tables, seed=0)
    writer = Writer("actor-0", schema, streams=[0, 1, 2], folder=tmp_path, rows_per_segment=10, commit=shard.commit)
    sampler = Sampler(schema, tables, [shard])
    actor = make_actor(writer, InMemoryWeights(wait=lambda at_least: at_least), max_version_lag=0, rows=rows)
    wanted = [reference(Counting(), seed, slot, rows * blocks + 1) for slot, seed in enumerate(SEEDS)]
    for block in range(blocks):
        assert shard.missing(block)
        actor.collect()
        assert shard.missing(block) == ""
        batch = sampler.read(block)["fresh"]
        assert batch["stream"].tolist() == [0, 1, 2]
        assert (batch["mask"][:, rows] == 0).all()
        for slot in range(3):
            expected = wanted[slot][block * rows : (block + 1) * rows + 1]
            for name in ("observation", "episode", "step"):
                np.testing.assert_array_equal(batch[name][slot], np.stack([row[name] for row in expected]))
            for name in ("action", "reward", "discounted_return", "terminated", "truncated", "mask", "log_prob"):
                column = np.array([row[name] for row in expected[:rows]], dtype=batch[name].dtype)
                np.testing.assert_allclose(batch[name][slot, :rows], column, rtol=1e-5, err_msg=name)
        assert (batch["policy_version"][:, :rows] == block).all()
    sampler.close()
    actor.close()
    shard.close()
