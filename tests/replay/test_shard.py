from pathlib import Path

import numpy as np
import pytest

from replay import CommitLost, NotReady, Sampler, Shard, Table, TableError
from tests.replay.store import SCHEMA, Hand

PPO = Table(batch=2, window=5, stride=4, max_lag=0, capacity=4)


def windows(shard: Shard, step: int, name: str = "fresh", **rank) -> list[tuple[int, int]]:
    items = shard.draw(step, **rank).items[name]
    return list(zip(items.streams.tolist(), items.starts.tolist(), strict=True))


def arrow_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.arrow"))


def test_a_window_is_ready_when_its_last_row_is_open(tmp_path: Path):
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [3, 1], tmp_path, shard.commit)
    hand.block(3)
    assert shard.missing(0) == 'table "fresh" holds 0 of 2 windows'
    with pytest.raises(NotReady, match="0 of 2"):
        shard.draw(0)
    hand.block(1)
    assert shard.missing(0) == ""
    assert windows(shard, 0) == [(1, 0), (3, 0)]
    hand.block(4, version=1)
    assert windows(shard, 1) == [(1, 4), (3, 4)]


def test_a_decision_that_is_not_made_is_not_handed_out(tmp_path: Path):
    shard = Shard({"fresh": Table(batch=1), "any": Table(batch=1, select="uniform")}, seed=0)
    hand = Hand("a", [0], tmp_path, shard.commit)
    hand.commit()
    assert shard.statistics()["any/windows"] == shard.statistics()["fresh/windows"] == 0
    hand.block(1)
    assert shard.statistics()["any/windows"] == shard.statistics()["fresh/windows"] == 1


def test_a_full_fifo_admits_nobody(tmp_path: Path):
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit)
    hand.block(4)
    assert shard.admits()
    hand.block(4)
    assert not shard.admits()
    shard.draw(0)
    assert shard.admits()


def test_a_fast_actor_does_not_make_up_for_a_slow_one(tmp_path: Path):
    table = Table(batch=4, window=5, stride=4, per_stream=1, capacity=12)
    shard = Shard({"fresh": table}, seed=0)
    fast, slow = Hand("fast", [0, 1], tmp_path, shard.commit), Hand("slow", [2, 3], tmp_path, shard.commit)
    for version in (0, 0, 1):
        fast.block(4, version=version)
    assert shard.missing(0) == 'table "fresh" has 2 of 4 windows, at most 1 of each stream' and shard.admits()
    slow.block(4)
    assert windows(shard, 0) == [(0, 0), (1, 0), (2, 0), (3, 0)]
    with pytest.raises(NotReady, match="has 2 of 4"):
        shard.draw(1)
    slow.block(4, version=1)
    assert windows(shard, 1) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert shard.statistics()["fresh/windows"] == 2


def test_a_new_version_drops_the_unfinished_window(tmp_path: Path):
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit)
    hand.block(6, version=3)
    hand.block(3, version=4)  # rows 4 and 5 are of version 3, so their window can never be whole
    assert shard.statistics()["fresh/rows_dropped"] == 4
    hand.block(2, version=4)
    assert windows(shard, 0) == [(0, 0), (1, 0)]
    assert windows(shard, 1) == [(0, 6), (1, 6)]


def test_a_lag_bound_lets_nearby_versions_mix(tmp_path: Path):
    shard = Shard({"fresh": Table(batch=1, window=4, max_lag=1)}, seed=0)
    hand = Hand("a", [0], tmp_path, shard.commit)
    for version in (5, 6, 7, 7):
        hand.block(2, version=version)
    assert windows(shard, 0) == [(0, 0)]
    assert windows(shard, 1) == [(0, 4)]
    assert shard.statistics()["fresh/rows_dropped"] == 0


def test_draws_are_of_all_tables_or_none(tmp_path: Path):
    tables = {"fresh": PPO, "frames": Table(batch=4, select="uniform", min_items=12)}
    shard = Shard(tables, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit)
    hand.block(4)
    assert shard.missing(0) == 'table "frames" holds 8 of 12 windows'
    with pytest.raises(NotReady):
        shard.draw(0)
    assert shard.statistics()["fresh/windows"] == 2
    hand.block(4)
    shard.draw(0)
    assert shard.statistics()["fresh/windows"] == 2


def test_ranks_share_one_draw_and_hold_its_rows_until_all_are_done(tmp_path: Path):
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit, rows_per_segment=4)
    hand.block(4)
    hand.block(4)
    assert windows(shard, 0, rank=0, ranks=2) == windows(shard, 0, rank=0, ranks=2) == [(0, 0)]
    assert windows(shard, 1, rank=0, ranks=2) == [(0, 4)]
    assert (tmp_path / "a-000000.arrow").exists()
    assert windows(shard, 0, rank=1, ranks=2) == [(1, 0)]
    assert windows(shard, 1, rank=1, ranks=2) == [(1, 4)]
    assert not (tmp_path / "a-000000.arrow").exists()


def test_draws_that_were_asked_for_early_keep_the_earlier_ones(tmp_path: Path):
    """A rank may ask for the next draw while it still reads this one."""
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit, rows_per_segment=4)
    for _ in range(4):
        hand.block(4)
    assert windows(shard, 0, done=0) == [(0, 0), (1, 0)]
    assert windows(shard, 1, done=0) == [(0, 4), (1, 4)]
    assert windows(shard, 2, done=0) == [(0, 8), (1, 8)]
    assert windows(shard, 0, done=0) == [(0, 0), (1, 0)]
    assert (tmp_path / "a-000000.arrow").exists()
    assert windows(shard, 2, done=1) == [(0, 8), (1, 8)]
    assert not (tmp_path / "a-000000.arrow").exists()
    assert (tmp_path / "a-000001.arrow").exists()
    assert windows(shard, 1, done=1) == [(0, 4), (1, 4)]


def test_uniform_keeps_the_newest_and_draws_each_once(tmp_path: Path):
    shard = Shard({"any": Table(batch=6, window=2, capacity=6, select="uniform")}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit, rows_per_segment=4)
    for version in range(4):
        hand.block(4, version=version)
    held = {(stream, start) for stream in (0, 1) for start in (13, 14, 15)}
    assert set(windows(shard, 0, "any")) == held
    assert shard.statistics()["any/windows"] == 6
    assert arrow_files(tmp_path) == ["a-000003.arrow", "a-000004.arrow"]


def test_uniform_draws_are_even(tmp_path: Path):
    shard = Shard({"any": Table(batch=10, select="uniform")}, seed=0)
    Hand("a", [0, 1], tmp_path, shard.commit).block(30)
    Hand("b", [2], tmp_path, shard.commit).block(40)
    counts = np.zeros((3, 40))
    for step in range(2000):
        for stream, start in windows(shard, step, "any"):
            counts[stream, start] += 1
    drawn = counts[counts > 0]
    assert len(drawn) == 100
    assert abs(drawn - 200).max() < 75  # 5 deviations of a binomial(2000, 0.1)


def test_what_is_held_does_not_depend_on_who_was_faster(tmp_path: Path):
    def draws(name: str, order: str) -> list:
        tables = {"fresh": Table(batch=4, window=4), "any": Table(batch=5, window=3, capacity=9, select="uniform")}
        shard = Shard(tables, seed=3)
        hands = {
            which: Hand(which, [stream, stream + 1], tmp_path / name, shard.commit)
            for which, stream in (("a", 0), ("b", 2))
        }
        seen = []
        for step in range(4):
            for which in order if step % 2 else order[::-1]:
                hands[which].block(4, version=step)
            seen.append((windows(shard, step), windows(shard, step, "any")))
        return seen

    assert draws("one", "ab") == draws("two", "ba")


def test_draws_follow_the_seed_the_shard_and_the_step(tmp_path: Path):
    seen = set()
    for seed, index in ((0, 0), (1, 0), (0, 1)):
        shard = Shard({"any": Table(batch=20, select="uniform")}, shards=2, index=index, seed=seed)
        Hand("a", [0], tmp_path / f"{seed}{index}", shard.commit).block(60)
        seen |= {tuple(windows(shard, step, "any")) for step in range(3)}
    assert len(seen) == 9


def test_a_repeated_commit_changes_nothing(tmp_path: Path):
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit)
    hand.block(4)
    hand.block(4)
    before = shard.statistics()
    for commit in hand.sent:
        shard.commit(commit)
    assert shard.statistics() == before | {"commits_repeated": 2.0}
    assert before["rows_committed"] == 16


def test_a_lost_commit_is_an_error(tmp_path: Path):
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [7], tmp_path, lambda commit: None)
    for _ in range(3):
        hand.block(4)
    shard.record = list[tuple]().append  # with a journal it knows what came before
    with pytest.raises(CommitLost, match="commit 1, the first that came, begins at row 4, wanted 0"):
        shard.commit(hand.sent[1])
    assert shard.commit(hand.sent[0]), "the one that was missing is taken when it comes"
    with pytest.raises(CommitLost, match="begins at row 8 of stream 7, wanted at most 4"):
        shard.commit(hand.sent[2])


def test_a_restarted_writer_takes_over(tmp_path: Path):
    shard = Shard({"fresh": Table(batch=2, window=4)}, seed=0)
    old = Hand("a.0", [0, 1], tmp_path, shard.commit, rows_per_segment=4)
    old.block(6)  # one whole window of each stream, and two rows that will never be one
    new = Hand("a.1", [0, 1], tmp_path, shard.commit, rows_per_segment=4)
    new.block(5)
    assert shard.statistics()["fresh/rows_dropped"] == 4
    sampler = Sampler(SCHEMA, {"fresh": Table(batch=2, window=4)}, [shard])
    assert sampler.read(0)["fresh"]["observation.place"][:, :, 1].tolist() == [[0, 1, 2, 3]] * 2
    sampler.read(1)
    assert arrow_files(tmp_path) == ["a.1-000000.arrow", "a.1-000001.arrow"]
    old.block(6)
    assert shard.statistics()["commits_stale"] == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("a.0")) == []


def test_a_new_shard_accepts_a_writer_that_is_under_way(tmp_path: Path):
    table = Table(batch=1, window=4, lead=2)
    shard = Shard({"fresh": table}, seed=0)
    hand = Hand("a", [0], tmp_path, lambda commit: shard.commit(commit), rows_per_segment=4)
    hand.block(10)
    shard = Shard({"fresh": table}, seed=0)
    hand.block(10)
    assert windows(shard, 0) == [(0, 12)]  # rows 10 and 11 are its lead
    batch = Sampler(SCHEMA, {"fresh": table}, [shard]).read(0)["fresh"]
    assert batch["observation.place"][0, :, 1].tolist() == [10, 11, 12, 13, 14, 15]


def test_close_leaves_no_file(tmp_path: Path):
    shard = Shard({"fresh": PPO}, seed=0)
    hand = Hand("a", [0, 1], tmp_path, shard.commit)
    hand.block(30)
    hand.writer.close()
    shard.close()
    assert list(tmp_path.iterdir()) == []


def test_uneven_batches_are_refused():
    with pytest.raises(TableError, match="3 shards"):
        Shard({"fresh": Table(batch=4)}, shards=3, seed=0)
    with pytest.raises(TableError, match="3 ranks"):
        Shard({"fresh": Table(batch=4)}, seed=0).draw(0, rank=0, ranks=3)
    with pytest.raises(TableError, match="at least one table"):
        Shard({}, seed=0)
