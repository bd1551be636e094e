"""What a table holds, hands out and lets go, against a slow and obvious version of the same."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import Shard, Table
from replay.ids import shard_of
from replay.table import KINDS
from tests.replay.store import Messages, examples

BATCH, SEED = 3, 5
ORDERED = ("fifo", "lifo", "min", "max")
Window = tuple[int, int]  # stream, start


class Obvious:
    """A table of windows of one row, by its definition; what chance decides is taken from the shard."""

    def __init__(self, table: Table, shards: int) -> None:
        self.table, self.shards, self.capacity = table, shards, -(-table.capacity_windows // shards)
        self.held: dict[Window, dict] = {}
        self.waiting: list[tuple[int, int, int]] = []  # version, row, stream
        self.births, self.highest = itertools.count(), 1.0
        self.counts = Counter(inserted=0, drawn=0, evicted=0, priorities_set=0, priorities_stale=0, spent=0)

    def add(self, stream: int, rows: range, version: int) -> None:
        self.waiting += [(version, row, stream) for row in rows]
        self.counts["inserted"] += len(rows)

    def make_room(self, part: int) -> None:
        """Of windows that have to leave because they are the oldest, many leave before the next draw."""
        while self.table.removal == "fifo" and len(self.held) + len(self.waiting) - self.capacity >= part <= len(
            self.held
        ):
            for window in self.order("fifo")[:part]:
                del self.held[window]
            self.counts["evicted"] += part

    def settle(self, left: set[Window]) -> None:
        """Take in what waits; `left` is what the shard holds then."""
        for _, row, stream in sorted(self.waiting):
            self.held[stream, row] = {"birth": next(self.births), "priority": self.highest, "reads": 0}
        self.waiting = []
        excess = len(self.held) - self.capacity
        if excess > 0 and self.table.removal != "wait":
            leave = self.order(self.table.removal)[:excess] if self.table.removal in ORDERED else set(self.held) - left
            assert len(leave) == excess
            self.counts["evicted"] += excess
            for window in leave:
                del self.held[window]
        assert set(self.held) == left

    def order(self, kind: str) -> list[Window]:
        keys = {
            "fifo": lambda window: window["birth"],
            "lifo": lambda window: -window["birth"],
            "min": lambda window: (window["priority"], window["birth"]),
            "max": lambda window: (-window["priority"], window["birth"]),
        }
        return sorted(self.held, key=lambda window: keys[kind](self.held[window]))

    def draw(self, windows: list[Window], probabilities: list[float]) -> None:
        """Check what was drawn, and let go what was read often enough."""
        assert set(windows) <= set(self.held)
        assert self.table.select == "prioritised" or len(set(windows)) == len(windows)
        chances = [self.chance(window) / self.shards for window in windows]
        if self.table.select in ORDERED:
            first = self.order(self.table.select)[:BATCH]
            assert windows == (sorted(first) if self.table.select == "fifo" else first)
        if self.table.select != "prioritised" or not self.table.read_limit:
            np.testing.assert_allclose(probabilities, chances)
        self.counts["drawn"] += len(windows)
        for window in windows if self.table.read_limit else ():
            self.held[window]["reads"] += 1
            if self.held[window]["reads"] == self.table.read_limit:
                self.counts["spent"] += 1
                del self.held[window]

    def chance(self, window: Window) -> float:
        if self.table.select in ORDERED:
            return 1.0
        masses = {
            w: facts["priority"] ** self.table.exponent * (facts["priority"] > 0) for w, facts in self.held.items()
        }
        total = sum(masses.values())
        if self.table.select == "uniform" or not total:
            return 1 / len(self.held)
        return masses[window] / total

    def prioritise(self, window: Window | None, priority: float) -> None:
        if window not in self.held:
            self.counts["priorities_stale"] += 1
            return
        self.counts["priorities_set"] += 1
        self.held[window]["priority"] = priority
        self.highest = max(self.highest, priority)


class Pair:
    """A shard and the obvious version of its table, told the same."""

    def __init__(self, fields: dict, shards: int) -> None:
        self.table = Table(**fields | {"batch": BATCH * shards, "capacity": fields["capacity"] * shards})
        self.shard = Shard({"any": self.table}, shards=shards, index=shards - 1, seed=SEED)
        self.obvious = Obvious(self.table, shards)
        self.writers = [Messages(f"w{n}", [2 * n, 2 * n + 1], lambda c: self.shard.commit(c)) for n in range(2)]
        self.known: dict[int, Window] = {}  # all windows ever drawn, by id
        self.step = self.version = 0

    def commit(self, number: int, counts: tuple[int, int]) -> None:
        writer = self.writers[number]
        for stream, begin, count in zip(writer.streams, writer.next.tolist(), counts, strict=True):
            self.obvious.add(stream, range(begin, begin + count), self.version)
        writer.block(*counts, version=self.version)
        self.obvious.make_room(64)
        if len(self.obvious.waiting) > self.obvious.capacity:  # memory is bounded
            self.obvious.settle(self.held())

    def held(self) -> set[Window]:
        columns = self.shard.holdings["any"].live()[1]
        streams = self.shard.sources.facts[columns[:, 0], 0]
        return set(zip(streams.tolist(), columns[:, 1].tolist(), strict=True))

    def draw(self) -> None:
        holding = self.shard.holdings["any"]
        assert bool(self.shard.missing(self.step)) == (holding.held < BATCH)
        if self.shard.missing(self.step):
            return
        holding.settle()
        if self.obvious.waiting:
            self.obvious.settle(self.held())
        items = self.shard.draw(self.step).items["any"]
        self.step += 1
        windows = list(zip(items.streams.tolist(), items.starts.tolist(), strict=True))
        self.obvious.draw(windows, items.probabilities.tolist())
        assert (shard_of(items.ids) == self.shard.index).all()
        for number, window in zip(items.ids.tolist(), windows, strict=True):
            assert self.known.setdefault(number, window) == window
        assert len(set(self.known.values())) == len(self.known)

    def prioritise(self, picks: list[tuple[int, float]]) -> None:
        ids = sorted(self.known) or [123_456]
        chosen = [ids[place % len(ids)] for place, _ in picks]
        self.shard.prioritise("any", np.array(chosen, np.int64), np.array([priority for _, priority in picks]))
        for number, (_, priority) in zip(chosen, picks, strict=True):
            self.obvious.prioritise(self.known.get(number), priority)

    def check(self) -> None:
        holding, counts = self.shard.holdings["any"], self.obvious.counts
        assert holding.held == len(self.obvious.held) + len(self.obvious.waiting)
        assert counts["inserted"] == holding.held + counts["evicted"] + counts["spent"]
        assert holding.counts == {name: counts[name] for name in holding.counts}
        assert holding.full() == (self.table.removal == "wait" and holding.held >= self.obvious.capacity)
        assert self.table.removal == "wait" or len(self.obvious.held) <= self.obvious.capacity


PRIORITIES = st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0, 40.0])
ACTIONS = st.lists(
    st.tuples(st.just("commit"), st.integers(0, 1), st.tuples(st.integers(0, 6), st.integers(0, 6)), st.booleans())
    | st.tuples(st.just("commit"), st.integers(0, 1), st.tuples(st.integers(0, 70), st.just(40)), st.booleans())
    | st.just(("draw",))
    | st.tuples(st.just("prioritise"), st.lists(st.tuples(st.integers(0, 200), PRIORITIES), max_size=5))
    | st.just(("copy",)),
    max_size=30,
)


@pytest.mark.parametrize("select", KINDS)
@examples(150)
@given(
    remove=st.sampled_from([*KINDS, None]),
    reads=st.integers(0, 3),
    capacity=st.integers(BATCH, 14) | st.integers(90, 150),
    exponent=st.sampled_from([0.0, 0.6, 1.0]),
    shards=st.integers(1, 2),
    actions=ACTIONS,
)
def test_every_kind_of_table_does_what_it_says(
    select: str, remove, reads: int, capacity: int, exponent, shards, actions
):
    fields = {"select": select, "remove": remove, "reads": reads, "capacity": capacity, "exponent": exponent}
    pair = Pair(fields, shards)
    for name, *arguments in actions:
        if name == "commit":
            pair.version += arguments.pop()
            pair.commit(*arguments)
        elif name == "draw":
            pair.draw()
        elif name == "prioritise":
            pair.prioritise(*arguments)
        else:
            pair.shard = pickle.loads(pickle.dumps(pair.shard))
        pair.check()


@pytest.mark.parametrize("select", KINDS)
@examples(12)
@given(
    orders=st.lists(st.permutations(range(4)), min_size=2, max_size=6),
    reads=st.integers(0, 2),
    size=st.sampled_from([1, 1, 20]),
)
def test_what_is_held_and_drawn_does_not_depend_on_who_was_faster(select: str, orders, reads: int, size: int):
    seen = []
    for faster in (sorted, list):
        table = Table(batch=8, select=select, reads=reads, remove="fifo", capacity=40 if size == 1 else 300)
        shard = Shard({"any": table}, seed=SEED)
        writers = [Messages(f"w{number}", [3 * number, 3 * number + 1], shard.commit) for number in range(4)]
        drawn = []
        for step, order in enumerate(orders):
            for number in faster(order):
                writers[number].block(2 * size, (1 + number % 3) * size, version=step)
            items = shard.draw(step).items["any"]
            drawn.append([items.streams.tolist(), items.starts.tolist(), items.ids.tolist()])
            shard.prioritise("any", items.ids, items.starts % 7 / 2)
        seen.append(drawn)
    assert seen[0] == seen[1]


def test_a_priority_that_outlived_its_window_changes_nothing():
    shard = Shard({"any": Table(batch=2, select="prioritised", capacity=2)}, seed=SEED)
    writer = Messages("a", [0], shard.commit)
    writer.block(2)
    old = shard.draw(0).items["any"]
    writer.block(2)
    new = shard.draw(1).items["any"]
    assert not set(old.ids.tolist()) & set(new.ids.tolist())
    before = pickle.dumps(shard.holdings["any"].live())
    shard.prioritise("any", old.ids, np.array([1e6, 1e6]))
    shard.prioritise("any", np.array([10**17, 77]), np.array([1e6, 1e6]))
    assert pickle.dumps(shard.holdings["any"].live()) == before
    assert shard.statistics()["any/priorities_stale"] == 4
    assert shard.statistics()["any/priorities_set"] == 0


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf, 1e200])
def test_priorities_that_cannot_be_are_refused_before_anything_changes(wrong: float):
    shard = Shard({"any": Table(batch=2, select="prioritised", exponent=2.0)}, seed=SEED)
    Messages("a", [0], shard.commit).block(2)
    told: list[tuple] = []
    items = shard.draw(0).items["any"]
    before, shard.record = pickle.dumps(shard), told.append
    with pytest.raises(ValueError, match=r"a priority is .*: wanted finite numbers"):
        shard.prioritise("any", items.ids, np.array([1.0, wrong]))
    assert told == []
    assert pickle.dumps(shard) == before


def test_a_batch_that_may_repeat_windows_waits_for_as_many_all_the_same():
    shard = Shard({"any": Table(batch=4, arity=2, select="prioritised", min_items=2)}, seed=SEED)
    writer = Messages("a", [0], shard.commit)
    writer.block(7)
    assert shard.missing(0) == 'table "any" holds 7 of 8 windows'
    writer.block(1)
    assert len(shard.draw(0).items["any"].ids) == 8
