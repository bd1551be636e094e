"""Which files a shard keeps, gives to the archive, leaves to their writer, and removes."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from replay import Sampler, Segment, Shard, StoreFull, Table
from replay.archive import Archivist, read_archived
from replay.journal import Journal
from replay.recovery import Recorder, recover
from replay.segments import SPARE
from tests.replay.mortal import Archive
from tests.replay.store import SCHEMA, Hand, Messages, assert_rows

FRESH = {"fresh": Table(batch=2, window=4, capacity=999)}


def names(folder: Path, pattern: str = "*.arrow") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def draw_all(shard: Shard) -> None:
    while not shard.missing(shard.drawn):
        shard.draw(shard.drawn)


def test_released_segments_are_written_again(tmp_path: Path):
    shard = Shard(FRESH, seed=0)
    hand, sampler, inodes = Hand("a", [0, 1], tmp_path, shard.commit, rows_per_segment=4), None, set()
    sampler = Sampler(SCHEMA, FRESH, [shard])
    for step in range(30):
        hand.block(4)
        assert_rows(sampler.read(step)["fresh"], 0)
        inodes |= {path.stat().st_ino for path in tmp_path.glob("*.arrow")}
        assert len(names(tmp_path, "a.free-*")) <= SPARE
    assert len(inodes) <= 5
    assert shard.statistics()["segments_released"] > 25
    live = Segment.open(max(tmp_path.glob("*.arrow")))
    assert live.columns["mask"].sum() == 0  # of its last use


def test_a_writer_whose_name_begins_alike_keeps_its_files(tmp_path: Path):
    """A sender that begins again adds to its own name: a and a.1."""
    shard = Shard(FRESH, seed=0)
    Messages("a", [0, 1], shard.commit, folder=tmp_path).block(5, 5)
    second = Messages("a.1", [0, 1], shard.commit, folder=tmp_path, rows_per_segment=4)
    (tmp_path / "a.ends").touch()
    (tmp_path / "a.1.ends").touch()
    second.block(9, 9)
    draw_all(shard)
    second.block(1, 1)
    draw_all(shard)
    assert names(tmp_path, "a.*") == ["a.1-000001.arrow", "a.1-000002.arrow", "a.1.ends", "a.1.free-000000"]


def test_a_writer_that_was_given_up_can_be_replaced(tmp_path: Path):
    shard = Shard(FRESH, seed=0)
    Messages("a.0", [0, 1], shard.commit, folder=tmp_path).block(2, 2)
    shard.retire("a.0")
    shard.retire("a.0")
    shard.retire("nobody")
    for _ in range(2):  # nothing of it is left, and that has been noticed
        Messages("b", [7], shard.commit, folder=tmp_path).block(1)
    Messages("a.1", [0, 1], shard.commit, folder=tmp_path).block(4, 4)
    assert shard.statistics()["fresh/windows"] == 2
    assert names(tmp_path) == ["a.1-000000.arrow", "b-000000.arrow"]


def test_slots_that_others_took_over_hold_nothing_back(tmp_path: Path):
    archive = Archive(set())
    shard = Shard({"fresh": Table(batch=2, window=2)}, seed=0, archive=archive)
    both = Messages("both", [0, 1], shard.commit, folder=tmp_path, rows_per_segment=4)
    both.block(6, 6)
    Messages("one", [1], shard.commit, folder=tmp_path, rows_per_segment=4).block(2)
    for _ in range(10):
        both.block(4, 0)
        draw_all(shard)
        archive.work(9)
    assert archive.kept == {f"both-{index:06d}.arrow" for index in range(11)}
    assert len(names(tmp_path, "both-*.arrow")) == 2


def test_files_stay_until_the_archive_has_them_and_nothing_else_waits(tmp_path: Path):
    archive = Archive(set())
    shard = Shard(FRESH, seed=0, archive=archive)
    writer = Messages("a", [0], shard.commit, folder=tmp_path, rows_per_segment=4)
    for _ in range(6):
        writer.block(4)
    draw_all(shard)
    shard.finish(shard.drawn)
    assert len(names(tmp_path)) == 7
    assert shard.statistics()["segments"] == 1
    assert shard.statistics()["segments_archiving"] == 6
    archive.work(9)
    writer.block(1)
    assert names(tmp_path) == ["a-000006.arrow"]
    assert names(tmp_path, "a.free*") == ["a.free-000000", "a.free-000001"]


@pytest.mark.parametrize("drawn", [True, False])
def test_what_a_dead_writer_had_begun_goes_and_what_the_archive_waits_for_stays(drawn: bool, tmp_path: Path):
    """Also where all of it was read, so that the shard has forgotten the writer already."""
    archive = Archive(set())
    shard = Shard(FRESH, seed=0, archive=archive)
    writer = Messages("a", [0, 1], shard.commit, folder=tmp_path, rows_per_segment=4)
    writer.block(8, 8)
    if drawn:
        draw_all(shard)
        shard.finish(shard.drawn)
    heard = names(tmp_path)
    for begun in ("a-000003.arrow", "a-1-000000.arrow", "b-000000.arrow", "b.ends"):
        (tmp_path / begun).touch()
    shard.fence([0, 1], "a-1")
    assert shard.segments.gone("a") == drawn
    shard.segments.remove_unheard("a", tmp_path)
    assert names(tmp_path) == sorted([*heard, "a-1-000000.arrow", "b-000000.arrow"])
    shard.segments.remove_unheard("b", tmp_path)  # of whom nothing ever came
    assert names(tmp_path) == sorted([*heard, "a-1-000000.arrow"]) and not names(tmp_path, "b*")
    archive.work(9)  # which finds all that it was given
    assert archive.kept == set(heard)


class FullArchive(Archive):
    def finished(self) -> list[Path]:
        self.error, error = None, getattr(self, "error", None)
        if error:
            raise error
        return super().finished()


def test_what_the_archive_could_not_do_is_told_before_anything_changes(tmp_path: Path):
    archive = FullArchive(set())
    shard = Shard({"any": Table(batch=2, select="uniform", capacity=4)}, seed=0, archive=archive)
    writer = Messages("a", [0], shard.commit, folder=tmp_path)
    writer.block(5)
    told: list[tuple] = []
    before, shard.record = pickle.dumps(shard), told.append
    for call in (lambda: writer.block(1), lambda: shard.draw(0)):
        archive.error = StoreFull(28, "no room in the archive")
        with pytest.raises(StoreFull, match="no room in the archive"):
            call()
        assert told == []
        assert pickle.loads(before).statistics() == shard.statistics()
    writer.block(1)
    shard.draw(0)
    assert [name for name, *_ in told] == ["commit", "form"]


def test_too_many_bytes_let_windows_leave_down_to_the_fewest(tmp_path: Path):
    tables = {"any": Table(batch=4, select="uniform", min_items=20)}
    shard = Shard(tables, seed=0, max_bytes=1_000)
    writer = Messages("a", [0], shard.commit, folder=tmp_path, rows_per_segment=4)  # of 100 bytes each
    for _ in range(40):
        writer.block(4)
        assert shard.admits()
    assert shard.statistics()["bytes"] <= 1_000
    assert 20 <= shard.statistics()["any/windows"] <= 40
    assert shard.statistics()["any/evicted"] + shard.statistics()["any/windows"] == 160
    small = Shard(tables, seed=0, max_bytes=300)
    with pytest.raises(
        StoreFull, match=r"400 bytes of 300 allowed, and a draw still waits: table .any. holds 12 of 20"
    ):
        for _ in range(4):
            Messages("b", [0], small.commit, rows_per_segment=4).block(16 if small.segments.ledgers else 12)


def test_a_slow_archive_costs_no_window(tmp_path: Path):
    archive = Archive(set())
    shard = Shard({"any": Table(batch=4, select="uniform", capacity=16)}, seed=0, max_bytes=1_000, archive=archive)
    writer = Messages("a", [0], shard.commit, folder=tmp_path, rows_per_segment=4)
    while shard.admits():
        writer.block(4)
        shard.draw(0)
        assert 16 <= shard.statistics()["any/windows"] <= 32 or shard.statistics()["any/inserted"] < 16
    assert shard.statistics()["bytes"] <= 1_000
    assert len(names(tmp_path)) > 10
    archive.work(99)
    shard.draw(shard.drawn)  # learners go on, and hear of it
    assert shard.admits()


def test_actors_wait_beyond_the_bytes_while_there_is_something_to_read(tmp_path: Path):
    shard = Shard({"fresh": Table(batch=2, window=4, capacity=999)}, seed=0, max_bytes=500)
    writer = Messages("a", [0, 1], shard.commit, folder=tmp_path, rows_per_segment=4)
    writer.block(4, 4)
    assert shard.admits()
    for _ in range(5):
        writer.block(4, 4)
    assert not shard.admits()
    draw_all(shard)
    assert shard.admits()


@pytest.mark.parametrize("linked", [False, True])
def test_a_shard_that_comes_back_removes_what_was_to_go_and_keeps_the_rest(tmp_path: Path, linked: bool):
    live, seen = tmp_path / "live", tmp_path / "live"
    live.mkdir()
    if linked:  # a run's folder of segments is a link into shared memory
        seen = tmp_path / "seen"
        seen.symlink_to(live)
    shard = Shard(FRESH, seed=0)
    recorder = Recorder(shard, Journal(tmp_path, "shard-0"))
    writer = Messages("a", [0, 1], shard.commit, folder=seen, rows_per_segment=4)
    writer.block(17, 17)
    gone = Messages("gone", [5, 6], shard.commit, folder=seen, rows_per_segment=4)
    gone.block(4, 4)
    for name in ("a", "gone", "new"):
        (live / f"{name}.ends").touch()
    shard.segments._frozen = True  # it dies when it has written down what it does, and before it does it
    shard.retire("gone")
    shard.draw(0)
    shard.draw(1)
    shard.draw(2)
    shard.finish(3)
    recorder.close()
    (live / "new-000000.arrow").touch()  # of a writer that has not committed yet
    (live / "a-000005.arrow").touch()
    found = recover(tmp_path, "shard-0")
    assert found is not None
    before = names(live)
    found.segments.thaw(live, None)
    wanted = {Path(each.path).name for ledger in found.segments.ledgers.values() for each in ledger.segments.values()}
    assert set(names(live)) == wanted | {"new-000000.arrow", "a-000005.arrow"}
    assert len(before) > len(names(live))
    assert names(live, "*.ends") == ["a.ends", "new.ends"]


def test_a_shard_that_comes_back_archives_what_was_to_be(tmp_path: Path):
    live = tmp_path / "live"
    live.mkdir()
    shard = Shard(FRESH, seed=0, archive=Archive(set()))
    recorder = Recorder(shard, Journal(tmp_path, "shard-0"))
    writer = Messages("a", [0, 1], shard.commit, folder=live, rows_per_segment=4)
    writer.block(9, 11)
    Messages("gone", [5], shard.commit, folder=live, rows_per_segment=4).block(6)
    Messages("z", [7], shard.commit, folder=live, rows_per_segment=4).block(5)
    shard.retire("gone")
    draw_all(shard)
    shard.finish(shard.drawn)
    assert shard.segments.gone("gone")
    recorder.close()
    found, archive = recover(tmp_path, "shard-0"), Archive({"a-000001.arrow"})
    assert found is not None
    found.segments.thaw(live, archive)
    ends = {"a": [11, 13], "gone": [8], "z": [7]}  # the open rows among them
    wanted = ["a-000000.arrow", "gone-000000.arrow", "gone-000001.arrow", "z-000000.arrow"]
    assert archive.ends == {name: ends[name.split("-")[0]] for name in wanted}
    archive.work(9)
    found.segments.collect()
    assert names(live) == ["a-000002.arrow", "z-000001.arrow"]


def test_nothing_is_lost_on_the_way_into_the_archive(tmp_path: Path):
    """With a real archive, which is slower than the writers."""
    shard = Shard(FRESH, seed=0, archive=Archivist(tmp_path / "log"))
    hands = [Hand(f"w{number}", [2 * number, 2 * number + 1], tmp_path / "live", shard.commit) for number in range(2)]
    for _ in range(15):
        for hand in hands:
            hand.block(5)
        draw_all(shard)
    for hand in hands:
        hand.writer.close()
    shard.close()
    assert names(tmp_path / "live", "*") == []
    for number in range(2):
        batches = [read_archived(path, ["stream", "row", "mask"]) for path in tmp_path.glob(f"log/w{number}-*.arrow")]
        rows = np.concatenate([np.stack([batch.column(i).to_numpy() for i in range(3)], axis=1) for batch in batches])
        decided = rows[rows[:, 2] == 1]
        assert sorted(map(tuple, decided[:, :2].tolist())) == [
            (2 * number + s, row) for s in (0, 1) for row in range(75)
        ]
