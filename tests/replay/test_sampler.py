from pathlib import Path

import numpy as np
import pytest

from replay import Column, Sampler, Schema, SchemaError, Shard, Table
from tests.replay.store import SCHEMA, Hand, assert_rows


def test_lead_rows_and_masks(tmp_path: Path):
    table = Table(batch=4, window=5, stride=4, lead=3)
    shard = Shard({"fresh": table}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit, rows_per_segment=3)
    hand.block(8)
    batch = Sampler(SCHEMA, {"fresh": table}, [shard]).read(0)["fresh"]
    assert_rows(batch, 3)
    assert batch["start"].tolist() == [0, 4, 0, 4]
    assert batch["observation.place"][0, :, 1].tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert batch["observation.place"][1, :, 1].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert batch["mask"].tolist() == [[0, 0, 0, 1, 1, 1, 1, 0]] * 4


def test_an_open_row_stays_closed_after_it_is_completed(tmp_path: Path):
    table = Table(batch=1, window=3, select="uniform")
    shard = Shard({"any": table}, seed=0)
    hand = Hand("a", [0], tmp_path, shard.commit)
    hand.block(2)
    sampler = Sampler(SCHEMA, {"any": table}, [shard])
    before = sampler.read(0)["any"]["mask"].tolist()
    hand.block(1)
    assert sampler.read(0)["any"]["mask"].tolist() == before == [[1, 1, 0]]


@pytest.mark.parametrize("window", [1, 6])
def test_short_and_long_windows_of_many_segments(tmp_path: Path, window: int):
    table = Table(batch=200, window=window, lead=2, select="uniform")
    shards = [Shard({"any": table}, shards=2, index=index, seed=0) for index in (0, 1)]
    for index, shard in enumerate(shards):
        for name in "ab":
            streams = [10 * index + ord(name), 10 * index + ord(name) + 5]
            Hand(f"{name}{index}", streams, tmp_path, shard.commit, rows_per_segment=50).block(120)
    sampler = Sampler(SCHEMA, {"any": table}, shards)
    for step in range(3):
        batch = sampler.read(step)["any"]
        assert_rows(batch, 2)
        assert len(set(batch["stream"].tolist())) == 8
        assert len(set(zip(batch["stream"].tolist(), batch["start"].tolist(), strict=True))) == 200


def test_ranks_together_read_what_one_rank_reads(tmp_path: Path):
    tables = {"fresh": Table(batch=8, window=3), "any": Table(batch=8, window=2, select="uniform")}

    def read(ranks: int) -> list[dict]:
        shards = [Shard(tables, shards=2, index=index, seed=0) for index in (0, 1)]
        for index, shard in enumerate(shards):
            Hand(f"{index}", [4 * index, 4 * index + 1], tmp_path / f"{ranks}", shard.commit).block(12)
        return [Sampler(SCHEMA, tables, shards, rank=rank, ranks=ranks).read(0) for rank in range(ranks)]

    (whole,), parts = read(1), read(2)
    for name in tables:
        starts = [np.stack([part[name]["stream"], part[name]["start"]], 1).reshape(2, 2, 2) for part in parts]
        wanted = np.stack([whole[name]["stream"], whole[name]["start"]], 1)
        # A rank's batch is its slice of shard 0, then its slice of shard 1.
        np.testing.assert_array_equal(np.concatenate(starts, axis=1).reshape(-1, 2), wanted)


def test_the_caller_allocates_and_arrays_are_reused(tmp_path: Path):
    table = Table(batch=2, window=3)
    shard = Shard({"fresh": table}, seed=0)
    Hand("a", [0, 1], tmp_path, shard.commit).block(6)
    made = []

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        made.append(np.zeros(shape, dtype))
        return made[-1]

    sampler = Sampler(SCHEMA, {"fresh": table}, [shard], allocate=allocate)
    first = sampler.read(0)["fresh"]
    assert sampler.read(1)["fresh"]["mask"] is first["mask"]
    assert {id(array) for array in made} == {id(array) for array in first.values()}


def test_mappings_of_released_segments_are_closed(tmp_path: Path):
    table = Table(batch=2, window=4)
    shard = Shard({"fresh": table}, seed=0)
    hand = Hand("mapped", [0, 1], tmp_path, shard.commit, rows_per_segment=4)
    sampler = Sampler(SCHEMA, {"fresh": table}, [shard])
    for step in range(60):
        hand.block(4)
        sampler.read(step)
    assert Path("/proc/self/maps").read_text().count(f"{tmp_path}/mapped-") < 32
    hand.writer.close()
    sampler.close()
    assert f"{tmp_path}/mapped-" not in Path("/proc/self/maps").read_text()


def test_other_columns_are_refused(tmp_path: Path):
    table = Table(batch=1, window=2)
    shard = Shard({"fresh": table}, seed=0)
    Hand("a", [0], tmp_path, shard.commit).block(4)
    other = Schema({**SCHEMA.columns, "action": Column("float32", (2,))})
    with pytest.raises(SchemaError, match=r'"action" is int64 \(\), wanted float32 \(2,\)'):
        Sampler(other, {"fresh": table}, [shard]).read(0)
