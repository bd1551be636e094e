import pytest

from replay import Table, TableError


def test_defaults_follow_the_selection():
    fifo, uniform = Table(batch=8, window=5), Table(batch=8, window=5, select="uniform")
    assert (fifo.stride_rows, fifo.capacity_windows, fifo.min_windows, fifo.owned_rows) == (5, 16, 8, 5)
    assert (uniform.stride_rows, uniform.capacity_windows, uniform.min_windows) == (1, 100_000, 8)
    assert fifo.reads_once
    assert not uniform.reads_once


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 0},
        {"window": 0},
        {"lead": -1},
        {"stride": 0},
        {"max_lag": -1},
        {"capacity": 7},
        {"min_items": 7},
        {"select": "uniform", "max_lag": 0},
        {"min_items": 17},
    ],
)
def test_tables_that_cannot_be_served_are_refused(wrong):
    with pytest.raises(TableError, match=r"wanted|must|takes|only"):
        Table(**({"batch": 8} | wrong))
