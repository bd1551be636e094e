"""The benchmark of what a row costs: its figures by hand, and one pass of a real store."""

import pytest

from benchmarks.replay.rows import opened
from benchmarks.replay.rows_table import ADDED_BYTES, Round, Size, markdown, summary
from replay.stopwatch import Stopwatch

SIZE = Size("numbers", streams=2, rows=4, row_bytes=100, commit=400, draw=80)


def taken(write: float, memcpy: float = 0.5, shard: float | None = None) -> Round:
    return Round({"write": write, "commit": 1.0, "draw": 2.0, "gather": 0.5}, memcpy, 6.0, shard)


def test_a_stage_is_told_beside_a_copy_of_the_row_and_the_bytes_that_it_has_to_move() -> None:
    told = summary(SIZE, [taken(1.0), taken(2.0), taken(4.0)])
    assert told["write"] == {"us": 2.0, "times": 4.0, "bytes": 100.0, "floor": 1.0}
    # The open row of each stream, and the message.
    assert told["commit"]["bytes"] == 100 / 4 + 400 / 8 and told["draw"]["floor"] == 0.1
    assert told["gather"]["bytes"] == 125 + ADDED_BYTES / 4
    assert told["all"]["us"] == 5.5 and told["all"]["bytes"] == sum(SIZE.moved.values())


def test_ways_of_the_same_rows_are_in_one_table() -> None:
    other = Size("numbers", streams=2, rows=8, row_bytes=100)
    results = [(SIZE, "here", [taken(1.0)]), (SIZE, "there", [taken(1.0, shard=3.0)]), (other, "here", [taken(1.0)])]
    text = markdown(results)
    assert text.count("**numbers, 2 streams") == 2
    assert "| here | 1 (2x) | 1 (2x) | 2 (4x) | 0.5 (1x) | 4.5 (9x) | 6 |" in text and "| 6 + 3 |" in text


@pytest.mark.parametrize("way", ["in process", "in process, by block"])
def test_every_row_that_is_written_is_gathered(way: str) -> None:
    with opened("CartPole", 4, way) as route:  # type: ignore[arg-type]
        first = route.step
        route.go(Stopwatch(("write", "commit", "draw", "gather")))
        assert route.step == first + 1 and route.size.commit > 0 and route.size.draw > 0
        round_ = route.measure(0.02)
    assert min(round_.stages.values()) > 0 and round_.memcpy > 0 and round_.shard is None
