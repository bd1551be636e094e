import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay import Column, Schema, Segment, StoreFull
from replay.schema import DTYPES

SCHEMA = Schema({f"{dtype}{len(shape)}": Column(dtype, shape) for dtype in DTYPES for shape in ((), (2, 3))})

FULL = """
import resource, sys
from replay import Column, Schema, Segment, StoreFull
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Segment.create(sys.argv[1] + "/a-000000.arrow", Schema({"x": Column("uint8", (1000,))}), streams=4, rows=100)
except StoreFull as error:
    print(error)
"""


def fill(segment: Segment) -> dict[str, np.ndarray]:
    for place, view in enumerate(segment.columns.values()):
        view[...] = (np.arange(view.size) + place).reshape(view.shape) % 100
    return {name: view.copy() for name, view in segment.columns.items()}


def test_a_new_segment_is_zero_and_aligned(tmp_path: Path):
    segment = Segment.create(tmp_path / "a.arrow", SCHEMA, streams=3, rows=5)
    assert segment.columns["float322"].shape == (3, 5, 2, 3)
    assert all(not view.any() and view.flags.aligned for view in segment.columns.values())
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrow"]
    assert segment.size == segment.path.stat().st_size


def test_pyarrow_reads_a_live_segment(tmp_path: Path):
    segment = Segment.create(tmp_path / "a.arrow", SCHEMA, streams=3, rows=5, metadata={"writer": "me"})
    wanted = fill(segment)
    with pa.memory_map(str(segment.path)) as file:
        reader = pa.ipc.open_file(file)
        assert reader.schema.metadata[b"writer"] == b"me"
        batch = reader.get_batch(0)
        batch.validate(full=True)
        for name, column in SCHEMA.columns.items():
            array = batch.column(name)
            got = array.to_numpy_ndarray() if column.shape else array.to_numpy()
            np.testing.assert_array_equal(got.reshape(3, 5, *column.shape), wanted[name])


def test_a_reopened_segment_has_the_same_bytes(tmp_path: Path):
    writer = Segment.create(tmp_path / "a.arrow", SCHEMA, streams=3, rows=5)
    reader = Segment.open(str(tmp_path / "a.arrow"))
    wanted = fill(writer)  # after the reader has mapped it
    assert (reader.streams, reader.rows, reader.schema) == (3, 5, SCHEMA)
    for name, view in reader.columns.items():
        np.testing.assert_array_equal(view, wanted[name])
        assert not view.flags.writeable


def test_views_outlive_the_segment_and_its_file(tmp_path: Path):
    segment = Segment.create(tmp_path / "a.arrow", SCHEMA, streams=1, rows=2)
    view = segment.columns["int640"]
    segment.close()
    segment.path.unlink()
    view[:] = 7
    assert view.sum() == 14


def test_a_closed_segment_is_unmapped(tmp_path: Path):
    segment = Segment.create(tmp_path / "only.arrow", SCHEMA, streams=1, rows=2)
    assert "only.arrow" in Path("/proc/self/maps").read_text()
    segment.close()
    assert "only.arrow" not in Path("/proc/self/maps").read_text()


def test_no_room_is_an_error_and_leaves_nothing(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert result.returncode == 0, result.stderr
    assert str(tmp_path) in result.stdout
    assert "wanted 400,000 bytes" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("replay.segment.Path.replace", refuse)
    with pytest.raises(StoreFull, match="bytes free"):
        Segment.create(tmp_path / "a.arrow", SCHEMA, streams=1, rows=1)
    assert list(tmp_path.iterdir()) == []


def test_other_failures_are_not_called_full(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Segment.create(tmp_path / "missing" / "a.arrow", SCHEMA, streams=1, rows=1)
