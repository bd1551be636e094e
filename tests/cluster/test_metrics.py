import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cluster.metrics import Metrics, read_metrics


def events_of(folder: Path):
    """What TensorBoard itself makes of the event files, purges included."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "events"), purge_orphaned_data=True)
    accumulator.Reload()
    return accumulator


def test_tensorboard_and_json_lines_hold_the_same_numbers(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write(128, {"train/value_loss": 0.5, "time/fps": np.float32(100.0)})
        metrics.write(256, {"train/value_loss": 0.25})
    scalars = events_of(tmp_path).Scalars("train/value_loss")
    assert [(event.step, event.value) for event in scalars] == [(128, 0.5), (256, 0.25)]
    rows = read_metrics(tmp_path)
    assert [(row["step"], row["train/value_loss"]) for row in rows] == [(128, 0.5), (256, 0.25)]
    assert rows[0]["time/fps"] == 100.0
    assert "time/fps" not in rows[1]
    assert rows[0]["time"] == pytest.approx(scalars[0].wall_time, abs=0.01)


def test_a_write_can_be_read_before_the_writer_is_closed(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write(1, {"a/b": 1.0})
    assert len(read_metrics(tmp_path)) == 1
    metrics.close()
    metrics.close()


def test_not_a_number_is_null_in_strict_json(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write(1, {"a/nan": math.nan, "a/infinite": math.inf, "a/finite": 2.0})

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (row["a/nan"], row["a/infinite"], row["a/finite"]) == (None, None, 2.0)
    assert math.isnan(read_metrics(tmp_path)[0]["a/nan"])


def test_resuming_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        for step in (100, 200, 300):
            metrics.write(step, {"a/b": 1.0})
    with Metrics(tmp_path, resume_step=200) as metrics:
        metrics.write(300, {"a/b": 2.0})
    expected = [(100, 1.0), (200, 1.0), (300, 2.0)]
    assert [(row["step"], row["a/b"]) for row in read_metrics(tmp_path)] == expected
    assert [(event.step, event.value) for event in events_of(tmp_path).Scalars("a/b")] == expected


def test_a_line_cut_short_by_a_death_is_skipped_and_repaired(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.write(100, {"a/b": 1.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 200, "a/')
    assert [row["step"] for row in read_metrics(tmp_path)] == [100]
    with Metrics(tmp_path, resume_step=100) as metrics:
        metrics.write(200, {"a/b": 2.0})
    assert [row["step"] for row in read_metrics(tmp_path)] == [100, 200]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not JSON"):
        read_metrics(tmp_path)


def test_text_reaches_the_text_tab(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        metrics.text("experiment", "**bold**", step=7)
    accumulator = events_of(tmp_path)
    assert accumulator.SummaryMetadata("experiment").plugin_data.plugin_name == "text"
    (event,) = accumulator.Tensors("experiment")
    assert (event.step, event.tensor_proto.string_val[0]) == (7, b"**bold**")
    assert read_metrics(tmp_path) == []


def test_importing_is_light() -> None:
    program = "import sys, cluster.metrics; assert not {'torch', 'tensorflow', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
