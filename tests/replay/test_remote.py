"""Rows that come from another machine, and go to one, are those that would have been written and read on the spot."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import Draw, NotReady, Sampler, SchemaError, Shard, StoreFull, Table
from replay.remote import Receiver, Sender, Trajectory
from replay.sampler import FarShard, Gatherer, Prefetch, ShardLike
from tests.replay.mortal import statistics
from tests.replay.store import SCHEMA, Hand, assert_rows, examples, rows_of

WATCH = ("episode",)
TABLES = {
    "fresh": Table(batch=4, window=3, stride=2, lead=1, capacity=500),
    "any": Table(batch=4, window=2, lead=2, select="prioritised", within=("episode",)),
}


class FarHand(Hand):
    """A hand whose writer is a sender; the way to the other side can be made to fail."""

    def __init__(self, name: str, streams: list[int], receive, *, rows_per_segment: int = 8) -> None:
        self.streams, self.next = np.array(streams), np.zeros(len(streams), np.int64)
        self.receive, self.arrived, self.failure = receive, list[Trajectory](), ""
        self.writer = Sender(name, SCHEMA, streams=streams, rows_per_segment=rows_per_segment, send=self._send)

    def _send(self, trajectory: Trajectory) -> None:
        if self.failure != "lost":
            self.arrived.append(trajectory)
            self.receive(trajectory)
        failure, self.failure = self.failure, ""
        if failure:
            raise ConnectionError(failure)

    def commit(self, *, version: int = 0) -> None:
        try:
            super().commit(version=version)
        except ConnectionError:
            return


class Sides:
    """The same rows written on the spot and from afar."""

    def __init__(self, folder: Path) -> None:
        self.shards = [Shard(TABLES, seed=2) for _ in range(2)]
        self.receiver = Receiver(SCHEMA, folder / "far", self.shards[1])
        self.samplers = [Sampler(SCHEMA, TABLES, [shard]) for shard in self.shards]
        self.near, self.far = [], []
        for name, streams in (("a", [3, 1, 5]), ("b", [2, 8, 6])):
            facts = {"rows_per_segment": 5}
            self.near.append(Hand(name, streams, folder / "near", self.shards[0].commit, **facts, watch=WATCH))
            self.far.append(FarHand(name, streams, lambda trajectory: self.receiver.receive(trajectory), **facts))
        self.step = 0

    def write(self, number: int, counts: tuple[int, ...], failure: str, *, version: int) -> None:
        self.far[number].failure = failure
        for hand in (self.near[number], self.far[number]):
            hand.rows(*counts)
            hand.commit(version=version)

    def repeat(self, number: int, place: int) -> None:
        """A trajectory arrives once more."""
        if arrived := self.far[number].arrived:
            self.receiver.receive(arrived[-1 - place % len(arrived)])

    def read(self) -> None:
        for number in range(2):  # what failed to arrive does now
            self.write(number, (0, 0, 0), "", version=0)
        if missing := self.shards[0].missing(self.step):
            assert self.shards[1].missing(self.step) == missing
            return
        near, far = (sampler.read(self.step) for sampler in self.samplers)
        for name, table in TABLES.items():
            assert_rows(near[name], table.lead, table.within)
            for column, values in near[name].items():
                np.testing.assert_array_equal(far[name][column], values)
            for sampler in self.samplers:
                sampler.prioritise(name, near[name]["item"], near[name]["start"] % 5 + 0.5)
        self.step += 1


ACTIONS = st.lists(
    st.tuples(
        st.just("write"),
        st.integers(0, 1),
        st.tuples(*[st.integers(0, 9)] * 3) | st.just((5, 5, 5)),
        st.sampled_from(["", "", "", "lost", "arrived"]),
    )
    | st.tuples(st.just("repeat"), st.integers(0, 1), st.integers(0, 3))
    | st.just(("read",)),
    max_size=14,
)


@examples(25)
@given(actions=ACTIONS)
def test_rows_from_afar_are_those_written_on_the_spot(tmp_path_factory, actions: list):
    sides = Sides(tmp_path_factory.mktemp("rows"))
    for version, (name, *arguments) in enumerate(actions):
        if name == "write":
            sides.write(*arguments, version=version)
        else:
            getattr(sides, name)(*arguments)
    sides.write(0, (9, 9, 9), "", version=99)
    sides.read()
    sides.read()
    assert statistics(sides.shards[0]) == statistics(sides.shards[1])
    for hand in [*sides.near, *sides.far]:
        hand.writer.close()
    sides.receiver.close()


@examples(30)
@given(restarts=st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["", "dead", "lost", "arrived"])), max_size=8))
def test_nothing_that_was_committed_is_lost_when_the_receiver_dies(tmp_path_factory, restarts: list):
    """Nor does anything come twice, also where the receiver died after it had it, and before it said so."""
    folder, table = tmp_path_factory.mktemp("rows"), Table(batch=1, capacity=10_000)
    shard = Shard({"fresh": table}, seed=0)
    receiver = Receiver(SCHEMA, folder, shard)
    hand = FarHand("a", [0, 1], lambda trajectory: receiver.receive(trajectory), rows_per_segment=4)
    for rows, what in restarts:
        hand.failure = "" if what == "dead" else what
        hand.block(rows)
        if what in ("dead", "arrived"):
            receiver = Receiver(SCHEMA, folder, shard)
    hand.block(1)
    sampler, read = Sampler(SCHEMA, {"fresh": table}, [shard]), []
    while not shard.missing(len(read)):
        batch = sampler.read(len(read))["fresh"]
        read.append({name: batch[name][:, 0].copy() for name in SCHEMA.columns})
    found = {name: np.concatenate([row[name] for row in read]) for name in SCHEMA.columns}
    for name, values in rows_of(*found["observation.place"].T).items():
        np.testing.assert_array_equal(found[name], values)
    seen = list(map(tuple, found["observation.place"].tolist()))
    assert set(seen) == {(stream, number) for stream in (0, 1) for number in range(int(hand.next[0]))}
    assert len(seen) == len(set(seen))


def test_who_was_forgotten_begins_again_under_another_name(tmp_path: Path):
    shard = Shard({"any": Table(batch=2, select="uniform")}, seed=0)
    receiver = Receiver(SCHEMA, tmp_path, shard)
    hand = FarHand("a", [0, 1], receiver.receive)
    hand.block(3)
    hand.receive = Receiver(SCHEMA, tmp_path, shard).receive
    hand.block(3)
    assert [(each.writer, each.sequence) for each in hand.arrived] == [("a", 0), ("a", 1), ("a.1", 0)]
    assert shard.statistics()["any/windows"] == 12
    for trajectory in hand.arrived[:2]:  # of the name that was given up
        hand.receive(trajectory)
    assert shard.statistics()["commits_stale"] == 2
    hand.block(3)  # it is still there
    assert (hand.arrived[-1].writer, hand.arrived[-1].sequence) == ("a.1", 1)


def test_rows_that_had_no_room_are_not_written_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shard = Shard({"fresh": Table(batch=1, capacity=999)}, seed=0)
    receiver = Receiver(SCHEMA, tmp_path, shard)
    hand = FarHand("a", [0], receiver.receive, rows_per_segment=4)
    hand.block(2)
    with monkeypatch.context() as full:
        full.setattr("replay.writer.Segment.create", refuse)
        with pytest.raises(StoreFull):
            hand.block(9)  # two rows fit, and the others do not
    hand.block(1)
    sampler = Sampler(SCHEMA, shard.tables, [shard])
    read = [int(sampler.read(step)["fresh"]["observation.place"][0, 0, 1]) for step in range(12)]
    assert sorted(read) == list(range(12))
    assert shard.missing(12)
    receiver.receive(hand.arrived[1])  # of the writer that was given up
    assert shard.missing(12)


def refuse(*arguments: object, **named: object) -> None:
    raise StoreFull(28, "no room")


def test_a_sender_refuses_rows_at_once():
    sent: list[Trajectory] = []
    sender = Sender("a", SCHEMA, streams=[0, 1], rows_per_segment=4, send=sent.append)
    with pytest.raises(SchemaError, match="lacks action"):
        sender.append(
            {name: values for name, values in rows_of(np.arange(2), np.arange(2)).items() if name != "action"}
        )
    with pytest.raises(SchemaError, match=r"got uint8 \(2, 20, 30\), wanted uint8 \(1, 20, 30\)"):
        sender.append(rows_of(np.arange(2), np.arange(2)), np.array([1]))
    with pytest.raises(SchemaError, match=r"the open row lacks observation, observation\.place"):
        sender.commit({}, version=0)
    assert sent == []


class Far:
    """A shard as a learner on another machine sees it."""

    def __init__(self, shard: Shard, shards: int) -> None:
        self.rows, self.prioritise = Gatherer(SCHEMA, shard.tables, shard, shards=shards).rows, shard.prioritise


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_from_afar_are_those_of_the_local_sampler(tmp_path: Path, ranks: int):
    tables = TABLES | {"pairs": Table(batch=8, arity=2, window=2, lead=1, select="uniform")}
    shards = [Shard(tables, shards=2, index=index, seed=1) for index in (0, 1)]
    hands = [Hand(f"w{n}", [2 * n, 2 * n + 1], tmp_path, shards[n].commit, watch=WATCH) for n in (0, 1)]
    far = [shards[0], Far(shards[1], 2)]
    assert isinstance(far[0], ShardLike)
    assert isinstance(far[1], FarShard)
    assert not isinstance(far[1], ShardLike)
    local, mixed = (
        [Sampler(SCHEMA, tables, each, rank=rank, ranks=ranks) for rank in range(ranks)] for each in (shards, far)
    )
    with pytest.raises(NotReady, match='table "fresh" holds 0 of 2'):
        mixed[0].read(0)
    for step in range(6):
        for hand in hands:
            hand.block(12)
        for here, there in zip(local, mixed, strict=True):
            near, distant = here.read(step), there.read(step)
            for name in tables:
                assert_rows(near[name], tables[name].lead, tables[name].within)
                for column, values in near[name].items():
                    np.testing.assert_array_equal(distant[name][column], values)
            there.prioritise("any", distant["any"]["item"], np.ones(4 // ranks))
    assert sum(shard.statistics()["any/priorities_set"] for shard in shards) == 24


class Locked:
    """A shard that two threads use."""

    def __init__(self, shard: Shard) -> None:
        self.shard, self._lock = shard, threading.Lock()

    def commit(self, commit) -> None:
        with self._lock:
            self.shard.commit(commit)

    def draw(self, step: int, rank: int = 0, ranks: int = 1) -> Draw:
        with self._lock:
            return self.shard.draw(step, rank, ranks)

    def prioritise(self, table: str, ids: np.ndarray, priorities: np.ndarray) -> None:
        with self._lock:
            self.shard.prioritise(table, ids, priorities)


def test_reading_ahead_gives_what_reading_in_turn_gives(tmp_path: Path):
    shards = [Locked(Shard(TABLES, seed=1)) for _ in range(2)]
    hands = [Hand("a", [0, 1], tmp_path / f"{n}", shard.commit, watch=WATCH) for n, shard in enumerate(shards)]
    plain = Sampler(SCHEMA, TABLES, [shards[0]])
    ahead = Prefetch(Sampler(SCHEMA, TABLES, [shards[1]], buffers=2))
    refused = 0
    for step in range(8):
        while missing := shards[0].shard.missing(step):
            for reader in (plain, ahead):
                with pytest.raises(NotReady) as refusal:
                    reader.read(step)
                assert str(refusal.value) == missing
            refused += 1
            for hand in hands:
                hand.block(4)
        wanted, found = plain.read(step), ahead.read(step)
        for name, table in TABLES.items():
            assert_rows(found[name], table.lead, table.within)
            for column, values in wanted[name].items():
                np.testing.assert_array_equal(found[name][column], values)
    assert refused > 4
    ahead.prioritise("any", found["any"]["item"], np.ones(4))
    ahead.close()
    assert shards[1].shard.statistics()["any/priorities_set"] == 4
