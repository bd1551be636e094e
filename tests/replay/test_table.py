import itertools

import pytest

from replay import Shard, Table, TableError
from replay.table import KINDS, watched


def test_defaults_follow_the_selection():
    fifo, uniform = Table(batch=8, window=5), Table(batch=8, window=5, select="uniform")
    assert (fifo.stride_rows, fifo.capacity_windows, fifo.min_windows, fifo.owned_rows) == (5, 16, 8, 5)
    assert (uniform.stride_rows, uniform.capacity_windows, uniform.min_windows) == (1, 100_000, 8)
    assert fifo.reads_once
    assert not uniform.reads_once
    assert (fifo.removal, uniform.removal) == ("wait", "fifo")


@pytest.mark.parametrize(("select", "reads"), list(itertools.product(KINDS, [None, 0, 1, 3])))
def test_reads_decide_what_happens_when_a_table_is_full(select: str, reads: int | None):
    table = Table(batch=8, window=4, select=select, reads=reads, remove="fifo" if reads == 0 else None)
    limit = reads if reads is not None else int(select in ("fifo", "lifo"))
    assert table.read_limit == limit
    assert table.removal == ("wait" if limit else "fifo")
    assert table.stride_rows == (4 if limit == 1 else 1)
    assert table.capacity_windows == (16 if limit else 100_000)


def test_a_window_owns_its_rows_up_to_the_next_where_windows_are_read_once():
    assert Table(batch=1, window=5, stride=4).owned_rows == 4
    assert Table(batch=1, window=5, stride=9).owned_rows == 5
    assert Table(batch=1, window=5, stride=4, reads=2).owned_rows == 5
    assert Table(batch=1, window=5, stride=4, select="uniform").owned_rows == 5


def test_windows_of_several_per_item_count_one_by_one():
    table = Table(batch=8, arity=2, select="uniform", samples_per_insert=4.0)
    assert (table.batch_windows, table.min_windows, table.slack) == (16, 16, 64)
    assert Table(batch=8, arity=2).capacity_windows == 32
    assert Table(batch=8, select="uniform", samples_per_insert=0.5).slack == 16
    assert Table(batch=8, select="uniform", samples_per_insert=0.5, tolerance=3.0).slack == 3


def test_a_minimum_beyond_the_usual_capacity_makes_room_for_itself():
    assert Table(batch=8, select="uniform", min_items=200_000).capacity_windows == 200_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"window": 0},
        {"lead": -1},
        {"stride": 0},
        {"arity": 0},
        {"reads": -1},
        {"exponent": -0.5},
        {"exponent": float("nan")},
        {"tolerance": -1.0},
        {"max_lag": -1},
        {"capacity": 7},
        {"min_items": 7},
        {"min_items": 0, "select": "prioritised"},
        {"arity": 2, "capacity": 15},
        {"select": "uniform", "max_lag": 0},
        {"reads": 2, "max_lag": 0},
        {"min_items": 17},
        {"select": "uniform", "remove": "wait"},
        {"reads": 0, "remove": "wait"},
        {"select": "uniform", "samples_per_insert": 0.0},
        {"select": "uniform", "samples_per_insert": float("nan")},
    ],
)
def test_tables_that_cannot_be_served_are_refused(wrong):
    with pytest.raises(TableError, match=r"wanted|must|takes|only|bound"):
        Table(**({"batch": 8} | wrong))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"samples_per_insert": 1.0}, "every window is drawn 1 times where actors wait"),
        ({"reads": 3, "samples_per_insert": 2.0}, "every window is drawn 3 times where actors wait"),
        ({"reads": 2, "remove": "fifo", "samples_per_insert": 2.5}, "2.5, and reads 2: a window can be drawn no more"),
    ],
)
def test_ratios_that_nobody_can_keep_are_refused(wrong, message: str):
    with pytest.raises(TableError, match=message):
        Shard({"table": Table(batch=8, **wrong)}, seed=0)
    Shard({"table": Table(batch=8, remove="fifo", reads=2, samples_per_insert=2.0)}, seed=0)


def test_watched_columns_are_those_of_all_tables():
    tables = {
        "a": Table(batch=1, within=("task", "episode")),
        "b": Table(batch=1, within=("episode",)),
        "c": Table(batch=1),
    }
    assert watched(tables) == ("episode", "task")
    assert watched({"c": tables["c"]}) == ()
