"""Whatever the order in which writers commit and learners draw, a table keeps its ratio, and nobody waits for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import NotReady, Shard, Table, TableError
from replay.limiter import Limiter
from tests.replay.store import Messages, examples

RATIOS = st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.5])
ACTIONS = st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=120)


class Rule:
    """A table as its limiter sees it: windows come in and are drawn while the limiter allows it."""

    def __init__(self, fields: dict) -> None:
        self.table = Table(batch=4, select="uniform", **fields)
        self.limiter = Limiter(self.table, shards=1)
        self.inserted = self.drawn = self.most = 0

    def act(self, write: bool, count: int) -> None:
        waiting = bool(self.limiter.missing(4, self.inserted))
        if write and (waiting or not self.limiter.ahead()):
            self.inserted, self.most = self.inserted + count, max(self.most, count)
            self.limiter.inserted(count)
        elif not write and not waiting:
            self.drawn += 4
            self.limiter.drawn(4)


@given(
    ratio=RATIOS,
    tolerance=st.sampled_from([None, 4.0, 9.5, 40.0]),
    least=st.sampled_from([None, 4, 50]),
    actions=ACTIONS,
)
def test_the_ratio_is_kept_within_the_tolerance(ratio: float, tolerance: float | None, least: int | None, actions):
    rule = Rule({"samples_per_insert": ratio, "tolerance": tolerance, "min_items": least})
    for write, count in actions:
        rule.act(write, count)
        if rule.inserted >= rule.table.min_windows:
            beyond = rule.drawn - ratio * (rule.inserted - rule.table.min_windows)
            assert -rule.table.slack - ratio * rule.most - 1e-6 <= beyond <= rule.table.slack + 1e-6
            assert rule.limiter.balance == pytest.approx(-beyond)
        else:
            assert rule.drawn == 0


@given(
    ratio=RATIOS,
    other=RATIOS | st.none(),
    least=st.sampled_from([4, 60]),
    before=ACTIONS,
    after=ACTIONS,
)
def test_another_ratio_counts_from_when_it_is_set(ratio: float, other: float | None, least: int, before, after):
    rule = Rule({"samples_per_insert": other})
    for write, count in before:
        rule.act(write, count)
    rule.table = Table(batch=4, select="uniform", samples_per_insert=ratio, min_items=least)
    rule.limiter.change(rule.table, shards=1, held=rule.inserted)
    inserted, drawn = max(rule.inserted, least), rule.drawn
    for write, count in after:
        rule.act(write, count)
        if rule.inserted >= inserted:
            beyond = rule.drawn - drawn - ratio * (rule.inserted - inserted)
            assert abs(beyond) <= 2 * rule.table.slack + ratio * rule.most + 1e-6
            assert -rule.table.slack - 1e-6 <= rule.limiter.balance <= rule.table.slack + ratio * rule.most + 1e-6


@given(ratio=RATIOS, least=st.sampled_from([4, 60]), before=ACTIONS)
def test_the_same_numbers_again_change_nothing(ratio: float, least: int, before):
    rule = Rule({"samples_per_insert": ratio, "min_items": least})
    for write, count in before:
        rule.act(write, count)
    if rule.limiter.balance <= rule.table.slack:
        balance = rule.limiter.balance
        rule.limiter.change(rule.table, shards=1, held=rule.inserted)
        assert rule.limiter.balance == pytest.approx(balance)


FIELDS = st.fixed_dictionaries(
    {
        "batch": st.just(4),
        "select": st.sampled_from(["uniform", "lifo", "prioritised"]),
        "reads": st.sampled_from([0, 2]),
        "remove": st.sampled_from(["fifo", "uniform", "max"]),
        "capacity": st.sampled_from([8, 30]),
        "min_items": st.sampled_from([4, 8]),
        "samples_per_insert": st.sampled_from([0.3, 1.0, 2.0]),
        "tolerance": st.sampled_from([None, 0.0, 5.0]),
    }
)


@examples(60)
@given(tables=st.lists(FIELDS, min_size=1, max_size=2), rows=st.lists(st.integers(1, 25), min_size=5, max_size=25))
def test_learners_and_actors_never_wait_for_each_other(tables: list[dict], rows: list[int]):
    shard = Shard({f"table{place}": Table(**fields) for place, fields in enumerate(tables)}, seed=0)
    writer, step = Messages("a", [0], shard.commit), 0
    for count in rows:
        assert shard.admits() or not shard.missing(step)
        if shard.admits():
            writer.block(count)
        while not shard.missing(step) and (count % 3 or not shard.admits()):
            shard.draw(step)
            step += 1
    assert step or sum(rows) < 40


def test_words_and_numbers():
    table = Table(batch=4, select="uniform", samples_per_insert=0.5, tolerance=4.0)
    shard = Shard({"any": table}, seed=0)
    writer = Messages("a", [0], shard.commit)
    writer.block(3)
    assert shard.missing(0) == 'table "any" holds 3 of 4 windows'
    writer.block(3)
    assert shard.statistics()["any/balance"] == 1.0
    shard.draw(0)
    with pytest.raises(NotReady) as refusal:
        shard.draw(1)
    wanted = 'table "any" gives 1 windows by samples_per_insert 0.5 with a tolerance of 4, and a draw takes 4'
    assert str(refusal.value) == wanted
    shard.limit("any", {"samples_per_insert": None})
    assert shard.statistics()["any/balance"] == 0.0
    shard.draw(1)
    shard.limit("any", {"samples_per_insert": 3.0})
    assert shard.statistics()["any/balance"] == 0.0  # what was before does not count
    writer.block(2)
    assert shard.statistics()["any/balance"] == 6.0
    assert not shard.admits()
    shard.draw(2)
    assert shard.admits()


def test_limits_are_checked_before_anything_changes():
    shard = Shard({"any": Table(batch=4, reads=2, remove="fifo", samples_per_insert=2.0, capacity=9)}, seed=0)
    told: list[tuple] = []
    shard.record = told.append
    for limits, message in [
        ({"capacity": 9}, "capacity cannot be changed"),
        ({"min_items": 3}, "min_items is 3"),
        ({"min_items": 10}, "capacity is 9: it must hold the 10 windows"),
        ({"tolerance": -1.0}, "tolerance is -1.0: wanted at least 0"),
        ({"samples_per_insert": 2.5}, "a window can be drawn no more often"),
    ]:
        with pytest.raises(TableError, match=message):
            shard.limit("any", limits)
    with pytest.raises(TableError, match='no table "none": the store has any'):
        shard.limit("none", {})
    assert told == []
    shard.limit("any", {"min_items": 6, "tolerance": 8.0})
    assert told == [("limit", "any", {"min_items": 6, "tolerance": 8.0})]
    Messages("a", [0], shard.commit).block(5)
    assert shard.missing(0) == 'table "any" holds 5 of 6 windows'
