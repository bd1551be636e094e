"""A writer that is killed at any instant leaves whole rows, and all that it committed."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from replay import Sampler, Segment, Table
from replay.extents import Extents
from replay.recovery import recover
from tests.replay.kill_writer import TABLES, WRITERS
from tests.replay.store import SCHEMA, assert_rows, rows_of

HOUSE = Path(__file__).parents[2]
ROWS = 7


def check_rows(live: Path, writer: str, streams: list[int]) -> list[int]:
    """Read all that is said to be complete as it lies in the files; how many rows of each stream that is."""
    _, _, ends = Extents.read(live / f"{writer}.ends")
    segments = {int(path.stem[-6:]): Segment.open(path) for path in live.glob(f"{writer}-*.arrow")}
    for slot, (stream, end) in enumerate(zip(streams, ends.tolist(), strict=True)):
        for index in {row // ROWS for row in range(max(0, end - 1))}:
            if index not in segments:  # released, when nobody needed it any more
                continue
            count = min(ROWS, end - 1 - index * ROWS)
            for name, wanted in rows_of(np.array(stream), index * ROWS + np.arange(count)).items():
                np.testing.assert_array_equal(segments[index].columns[name][slot, :count], wanted)
    return ends.tolist()


def check_shard(folder: Path, tables: dict[str, Table], told: dict[str, list[int]]) -> None:
    """The shard comes back with everything that it had acknowledged, and hands it out."""
    shard = recover(folder / "journal", "shard-0")
    assert shard is not None
    shard.segments.thaw(folder / "live", None)
    for writer, rows in told.items():
        assert (shard.segments.ledgers[writer].end - 1 >= rows).all()
    sampler, read, known = Sampler(SCHEMA, tables, [shard]), 0, shard.segments.ledgers.values()
    if "any" in tables:
        assert shard.statistics()["any/windows"] == sum(int((ledger.end - 1).sum()) for ledger in known)
    while not shard.missing(shard.drawn) and read < 5:
        batches, read = sampler.read(shard.drawn), read + 1
        for name, table in tables.items():
            assert_rows(batches[name], table.lead)


def kill_and_check(times: int) -> None:
    place = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        program = [sys.executable, "-m", "tests.replay.kill_writer", str(place), str(times)]
        done = subprocess.run(program, cwd=HOUSE, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        rows = 0
        for folder in place.iterdir():
            told: dict[str, list[int]] = {}  # the last that each writer was told to be committed
            content = np.frombuffer((folder / "told").read_bytes(), np.int64)
            while len(content):
                writer = "a" if content[0] == 0 else "b"
                count = 1 + len(WRITERS[writer])
                told[writer], content = content[1:count].tolist(), content[count:]
            for writer, streams in WRITERS.items():
                if (folder / "live" / f"{writer}.ends").exists():
                    ends = check_rows(folder / "live", writer, streams)
                    assert all(end > known for end, known in zip(ends, told.get(writer, []), strict=False))
                    rows += sum(ends)
            check_shard(folder, TABLES[int(folder.name) % 2], told)
        assert len(list(place.iterdir())) == times
        assert rows > 10 * times  # they were not all killed before they had begun
    finally:
        shutil.rmtree(place)


def test_a_writer_that_is_killed_leaves_whole_rows():
    kill_and_check(25)


@pytest.mark.slow
def test_a_writer_that_is_killed_500_times_leaves_whole_rows():
    kill_and_check(500)
