"""A shard as actors and learners on another machine see it: the same rows and ids as beside it."""

from pathlib import Path

import numpy as np
import pytest
import ray

from cluster.embedded import start_ray
from cluster.shard_handle import FarRayShard, RayShard
from cluster.store import ShardProcess
from replay import Sampler, Table
from replay.opening import Places
from replay.remote import Sender
from replay.writer import Writer
from tests.replay.store import SCHEMA, rows_of

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::ResourceWarning")]

TABLES = {
    "fresh": Table(batch=4, window=5, stride=4, capacity=100),
    "past": Table(batch=4, window=2, lead=1, within=("episode",), select="prioritised"),
}


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    start_ray("")
    yield
    ray.shutdown()


def shard_in(folder: Path) -> RayShard:
    (folder / "live").mkdir(parents=True)
    places = Places(live=folder / "live", kept=folder / "kept")
    made = ray.remote(num_cpus=0, max_concurrency=100)(ShardProcess)
    return RayShard(made.remote(TABLES, places, SCHEMA, shards=1, index=0, seed=3), "shard-0")


def written(writer: Writer | Sender) -> None:
    streams = np.array(writer.streams)
    for number in range(24):
        writer.append(rows_of(streams, np.full(4, number)))
        if number == 6:  # one stream is ahead of the others from here on
            writer.append(rows_of(streams[:1], np.array([99])), np.array([0]))
        if number % 8 == 7:
            known = rows_of(streams, np.full(4, number + 1))
            names = ("observation", "observation.place", "episode", "step")
            writer.commit({name: known[name] for name in names}, version=number // 8)
    writer.close()


def test_rows_sent_and_rows_received_are_those_written_and_read_in_place(tmp_path: Path) -> None:
    near, far = shard_in(tmp_path / "near"), shard_in(tmp_path / "far")
    assert near.near() and far.near()
    same = {"streams": range(4), "rows_per_segment": 6}
    watch = ("episode",)
    written(Writer("a", SCHEMA, folder=tmp_path / "near" / "live", commit=near.commit, watch=watch, **same))
    written(Sender("a", SCHEMA, send=far.receive, **same))
    here, there = Sampler(SCHEMA, TABLES, [near]), Sampler(SCHEMA, TABLES, [FarRayShard(far)])
    for step in range(4):
        ours, theirs = here.read(step), there.read(step)
        for table, batch in ours.items():
            assert batch.keys() == theirs[table].keys()
            for name, values in batch.items():
                np.testing.assert_array_equal(values, theirs[table][name], err_msg=f"{step} {table} {name}")
        for sampler, batch in ((here, ours), (there, theirs)):
            sampler.prioritise("past", batch["past"]["item"], np.arange(4) + 0.5 * step)
