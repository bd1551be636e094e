"""An actor that dies is replaced while the run goes on: every decision is handed out once, whatever was under way."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import Commit, CommitLost, Draw, Sampler, Shard, Table
from replay.journal import Journal
from replay.recovery import Recorder, recover, reopened
from replay.remote import Receiver, Sender, Trajectory
from tests.replay.store import SCHEMA, Hand, Messages, examples, rows_of

ROWS, LAG, BLOCKS = 4, 1, 4
STREAMS = ([0, 1], [2, 3])
TABLES = {
    "fresh": Table(batch=8, window=3, stride=2, lead=1, per_stream=2, capacity=(LAG + 2) * 8),
    "past": Table(batch=4, window=2, lead=1, select="uniform", capacity=1000),
}


class FarHand(Hand):
    """A hand whose rows travel."""

    def __init__(self, name: str, streams: list[int], send) -> None:
        self.streams, self.next = np.array(streams), np.zeros(len(streams), np.int64)
        self.writer = Sender(name, SCHEMA, streams=streams, rows_per_segment=6, send=send)

    def commit(self, *, version: int = 0) -> None:
        try:
            super().commit(version=version)
        except ConnectionError:
            return


class Run:
    """Two actors, near or far, whose messages take their time, a shard with its journal, and a learner.

    Rows are `rows_of` (stream, number), and the numbers of block k are the same whoever collects it.
    """

    def __init__(self, folder: Path, *, far: bool) -> None:
        self.folder, self.live, self.far = folder, folder / "live", far
        self.live.mkdir()
        self._use(Shard(TABLES, seed=3))
        self.sampler = Sampler(SCHEMA, TABLES, [self])
        self.lives, self.fate, self.step = [0, 0], "", 0
        self.flying: list[list[Commit | Trajectory]] = [[], []]  # by actor
        self.late: list[Commit | Trajectory] = []  # that nobody waits for
        self.hands = [self._start(number, 0) for number in range(2)]

    def _use(self, shard: Shard) -> None:
        self.shard, self.receiver = shard, Receiver(SCHEMA, self.live, shard)
        self.recorder = Recorder(shard, Journal(self.folder / "journal", "shard-0"))

    def _name(self, number: int) -> str:
        return f"actor-{number}.0" + (f".r{self.lives[number]}" if self.lives[number] else "")

    def _start(self, number: int, block: int) -> Hand:
        if self.far:
            hand: Hand = FarHand(self._name(number), STREAMS[number], self._send)
        else:
            commit = self.flying[number].append
            hand = Hand(self._name(number), STREAMS[number], self.live, commit, rows_per_segment=6)
        hand.next[:] = block * ROWS
        return hand

    def _send(self, trajectory: Trajectory) -> None:
        fate, self.fate = self.fate, ""
        if fate == "lost":
            self.late.append(trajectory)
            raise ConnectionError
        self._take(trajectory)
        if fate == "unheard":
            self.restart()
            raise ConnectionError

    def _take(self, message: Commit | Trajectory) -> None:
        if isinstance(message, Trajectory):
            self.receiver.receive(message)
        else:
            self.shard.commit(message)

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        return self.shard.draw(step, rank, ranks)

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        raise AssertionError

    def work(self, number: int, fate: str) -> None:
        """An actor collects a block, if it may already."""
        if self.hands[number].next[0] // ROWS <= self.step + LAG:
            self.fate = fate
            self.hands[number].block(ROWS, version=self.step)

    def arrive(self, number: int, count: int) -> None:
        """Messages of a living actor come."""
        for _ in range(min(count, len(self.flying[number]))):
            self._take(self.flying[number].pop(0))

    def die(self, number: int) -> None:
        """An actor dies; what it sent may still come. Another one takes its place."""
        self.late += self.flying[number]
        self.flying[number] = []
        self.lives[number] += 1
        block = self.shard.fence(STREAMS[number], self._name(number))
        assert self.shard.fence(STREAMS[number], self._name(number)) == block
        self.hands[number] = self._start(number, block)

    def come_late(self, place: int) -> None:
        if self.late:
            try:
                self._take(self.late[place % len(self.late)])
            except CommitLost:
                assert self.far  # nobody hears of it

    def restart(self) -> None:
        """The shard dies, and becomes itself again."""
        self.recorder.close()
        before, shard = self.shard.statistics(), recover(self.folder / "journal", "shard-0")
        assert shard is not None
        untold = {"commits_repeated", "commits_stale"}
        assert {n: v for n, v in shard.statistics().items() if n not in untold} == {
            n: v for n, v in before.items() if n not in untold
        }
        shard.segments.thaw(self.live, None)
        self._use(shard)

    def learn(self) -> None:
        """Read what can be: draw k is block k of every stream, and what is read again is what was written."""
        while not self.shard.missing(self.step):
            batches = self.sampler.read(self.step)
            for name, batch in batches.items():
                assert_written(batch, TABLES[name].lead)
            decided = batches["fresh"]["observation.place"][batches["fresh"]["mask"] == 1]
            numbers = range(self.step * ROWS, (self.step + 1) * ROWS)
            wanted = [(stream, number) for streams in STREAMS for stream in streams for number in numbers]
            assert sorted(map(tuple, decided.tolist())) == wanted
            self.step += 1

    def end(self) -> None:
        while self.step < BLOCKS + 2 * LAG:
            for number in range(2):
                self.work(number, "")
                self.arrive(number, 9)
            self.learn()
        windows = self.shard.statistics()["past/windows"]
        for place in range(len(self.late)):
            self.come_late(place)
        assert self.shard.statistics()["past/windows"] == windows
        for hand in self.hands:
            hand.writer.close()
        for commit in (commit for flying in self.flying for commit in flying):
            self._take(commit)
        self.receiver.close()
        self.sampler.close()
        self.shard.close()
        self.recorder.close()
        assert list(self.live.glob("*.arrow")) == []


def assert_written(batch: dict[str, np.ndarray], lead: int) -> None:
    """Every row that may train is as it was written, and a window's rows follow one another."""
    places, decided = batch["observation.place"], batch["mask"] == 1
    for name, values in rows_of(places[..., 0], places[..., 1]).items():
        np.testing.assert_array_equal(batch[name][decided], values[decided], err_msg=name)
    assert (np.diff(places[:, lead:, 1], axis=1) == 1).all()


ACTORS = st.integers(0, 1)
ACTIONS = st.lists(
    st.tuples(st.just("work"), ACTORS, st.sampled_from(["", "", "lost", "unheard"]))
    | st.tuples(st.just("work"), ACTORS, st.just(""))
    | st.tuples(st.just("arrive"), ACTORS, st.integers(1, 2))
    | st.tuples(st.just("die"), ACTORS)
    | st.tuples(st.just("come_late"), st.integers(0, 5))
    | st.sampled_from([("restart",), ("learn",)]),
    min_size=5,
    max_size=25,
)


@pytest.mark.parametrize("far", [False, True])
@examples(8)
@given(actions=ACTIONS)
def test_every_decision_is_handed_out_once_whoever_dies(far: bool, actions: list):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        run = Run(Path(folder), far=far)
        for name, *arguments in actions:
            getattr(run, name)(*arguments)
        run.end()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_writer_that_died_before_it_was_known_stays_out(tmp_path: Path):
    shard, under_way = Shard(TABLES, seed=0), list[Commit]()
    Hand("a.0", [0, 1], tmp_path, under_way.append).block(4)
    assert shard.fence([0, 1], "a.0.r1") == 0
    assert not shard.commit(under_way[0])
    assert names(tmp_path) == []
    assert shard.statistics()["commits_stale"] == 1
    Messages("a.0.r10", [0, 1], shard.commit).block(4, 4)
    assert shard.statistics()["rows_committed"] == 0  # its name only begins alike
    Messages("a.0.r1", [0, 1], shard.commit).block(4, 4)
    Messages("a.0.r1.1", [0, 1], shard.commit).block(4, 4)
    assert shard.statistics()["rows_committed"] == 16
    assert shard.fence([0, 1], "a.0.r2") == 2


def test_of_rows_that_came_in_time_a_late_commit_takes_nothing(tmp_path: Path):
    shard = Shard(TABLES, seed=0)
    hand = Hand("a.0", [0, 1], tmp_path, shard.commit, rows_per_segment=6)
    hand.block(4)
    assert shard.fence([0, 1], "a.0.r1") == 1
    hand.block(4)
    assert names(tmp_path) == ["a.0-000000.arrow", "a.0.ends"]
    assert shard.statistics() | {"commits_stale": 1.0, "past/windows": 8.0} == shard.statistics()


def test_a_sender_that_was_replaced_writes_no_file(tmp_path: Path):
    shard = Shard(TABLES, seed=0)
    hand = FarHand("a.0", [0, 1], lambda trajectory: Receiver(SCHEMA, tmp_path, shard).receive(trajectory))
    assert shard.fence([0, 1], "a.0.r1") == 0
    for _ in range(3):
        hand.block(4)
    assert names(tmp_path) == []
    assert shard.statistics()["commits_stale"] == 3
    assert hand.writer.name == "a.0"


def test_a_trajectory_of_which_nobody_said_that_it_came_is_there_once(tmp_path: Path):
    shard = Shard({"fresh": Table(batch=1, capacity=99)}, seed=0)
    Recorder(shard, Journal(tmp_path / "journal", "shard-0"))
    sent: list[Trajectory] = []
    receive = [Receiver(SCHEMA, tmp_path / "live", shard).receive]

    def send(trajectory: Trajectory) -> None:
        sent.append(trajectory)
        receive[0](trajectory)

    hand = FarHand("a", [0], send)
    hand.block(3)
    found = recover(tmp_path / "journal", "shard-0")
    assert found is not None
    found.segments.thaw(tmp_path / "live", None)
    receive[0] = Receiver(SCHEMA, tmp_path / "live", found).receive
    receive[0](sent[0])  # Ray repeats the call
    hand.block(2)
    assert [(each.writer, each.sequence) for each in sent] == [("a", 0), ("a", 1), ("a.1", 0)]
    sampler = Sampler(SCHEMA, found.tables, [found])
    read = [int(sampler.read(step)["fresh"]["observation.place"][0, 0, 1]) for step in range(5)]
    assert sorted(read) == list(range(5))
    assert found.missing(5)
    assert found.fence([0], "b") == 2


def test_a_commit_that_failed_and_is_repeated_keeps_its_number(tmp_path: Path):
    shard, full = Shard({"fresh": Table(batch=1, capacity=99)}, seed=0), [True]
    receiver = Receiver(SCHEMA, tmp_path, shard)

    def record(told: tuple) -> None:
        if full.pop() if full else False:
            raise ConnectionError("no room for the journal")

    shard.record = record
    hand = FarHand("a", [0], receiver.receive)
    hand.block(2)
    hand.block(2)
    assert (shard.segments.ledgers["a"].sequence, shard.fence([0], "b")) == (1, 2)
    assert shard.statistics()["rows_committed"] == 4


def test_streams_of_different_writers_have_no_common_count():
    shard, told = Shard(TABLES, seed=0), list[tuple]()
    Messages("a", [0, 1], shard.commit).block(4, 4)
    shard.record = told.append
    for streams, words in (([1, 2], "1 of stream 1, 0 of stream 2"), ([], "of no stream")):
        with pytest.raises(ValueError, match=f"commits so far: {words}; wanted all streams that one writer writes"):
            shard.fence(streams, "b")
    assert told == []


@pytest.mark.parametrize("shards", [1, 2])
def test_a_new_start_of_the_run_counts_anew_and_lets_everybody_in(shards: int):
    former = Shard(TABLES, seed=0)
    Messages("a.0", [0, 1], former.commit).block(4, 4)
    assert former.fence([0, 1], "a.0.r1") == 1
    shard = reopened([former], TABLES, shards=shards, seed=0, locate=lambda segment: segment)[0]
    Messages("a.1", [0, 1], shard.commit).block(4, 4)
    Messages("a.1", [0, 1], shard.commit).block(4, 4)
    assert shard.statistics()["commits_repeated"] == 1
    assert shard.fence([0, 1], "a.1.r1") == 1
