"""The benchmark of how weights reach actors: its figures by hand, and once for real."""

from pathlib import Path

import pytest

from benchmarks.broadcast import main, model_of
from benchmarks.broadcast_table import Exchange, Round, markdown, summary
from benchmarks.lines import FILE

ROUNDS = [
    Round(ours=Exchange(2.0, [10.0, 20.0, 30.0]), floor=Exchange(1.0, [5.0, 10.0, 20.0]), copy=1.0),
    Round(ours=Exchange(3.0, [10.0, 12.0, 18.0]), floor=Exchange(1.0, [8.0, 12.0, 12.0]), copy=1.5),
    Round(ours=Exchange(4.0, [10.0, 30.0, 60.0]), floor=Exchange(1.0, [8.0, 10.0, 20.0]), copy=2.0),
]


def test_ratios_are_medians_over_rounds_and_the_copies_floor_is_the_put_and_the_actors_turns() -> None:
    told = summary(ROUNDS, actors=3, cores=2)
    assert told["ratio"] == 2.0 and told["ratio_last"] == 1.5
    assert (told["ours_p50_ms"], told["ours_last_ms"], told["floor_last_ms"]) == (18.0, 30.0, 20.0)
    assert told["copies_floor_ms"] == 3 * told["copy_ms"] == 4.5
    assert (told["ours_publish_ms"], told["floor_publish_ms"], told["publish_per_copy"]) == (3.0, 1.0, 2.0)
    case = {"megabytes": 1, "actors": 3}
    assert "| 2.00 |" in markdown([case | told]) and "| **2.01** |" in markdown([case | told | {"ratio": 2.01}])


def test_the_size_is_what_it_is_called() -> None:
    weights = model_of(3).acting_weights()
    assert sum(array.nbytes for array in weights.values()) == pytest.approx(3 * 2**20, rel=0.01)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's own sockets, when their objects are collected
@pytest.mark.timeout(300)
def test_actors_hold_what_either_side_published(tmp_path: Path) -> None:
    main(megabytes=(1,), actors=(2,), repeats=1, report_in=tmp_path)
    assert len((tmp_path / FILE).read_text().splitlines()) == 1
    assert "| 1 MB | 2 |" in (tmp_path / "table.md").read_text()
