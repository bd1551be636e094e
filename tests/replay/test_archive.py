import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay import Column, Schema, SchemaError, Segment, StoreFull
from replay.archive import Archivist, Codec, CorruptSegment, archive, expire, place_of, read_archived, salvage
from replay.archive_file import read_facts
from tests.replay.live import ROWS, Live, expected
from tests.replay.store import SCHEMA

HOUSE = Path(__file__).parents[2]
CODECS: tuple[Codec, ...] = ("lz4", "zstd", "none")
SMALL = Schema({"frame": Column("uint8", (2, 3)), "mask": Column("uint8"), "reward": Column("float32")})

LIMITED = """
import resource, signal, sys
import numpy as np
from replay import StoreFull
from replay.archive import archive
if sys.argv[4] == "kill":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    archive(sys.argv[1], sys.argv[2], ends=np.array(eval(sys.argv[3])), codec="none")
except StoreFull as error:
    print(error)
"""


def limited(live: Live, index: int, log: Path, how: str) -> subprocess.CompletedProcess[str]:
    """Archive in a process whose files may not grow beyond 4000 bytes: it is told so, or killed at that byte."""
    arguments = [str(live.path(index)), str(log), str(live.ends.tolist()), how]
    return subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, cwd=HOUSE)


def numbers(live: Live, index: int, *, with_open: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Stream and row number of every complete row of a segment, and of the open ones."""
    first, last = index * live.rows, (index + 1) * live.rows
    rows = [np.arange(first, max(first, min(last, end - (not with_open)))) for end in live.ends.tolist()]
    return np.repeat(live.streams, [len(part) for part in rows]), np.concatenate(rows)


def check(batch: pa.RecordBatch, streams: np.ndarray, rows: np.ndarray) -> None:
    wanted = expected(streams, rows)
    assert batch.schema.names == list(wanted)
    for name, values in wanted.items():
        column = batch.column(name)
        got = column.to_numpy_ndarray() if isinstance(column, pa.FixedShapeTensorArray) else column.to_numpy()
        assert got.dtype == values.dtype
        np.testing.assert_array_equal(got, values)


def small(folder: Path, codec: Codec, counts: tuple[int, int] = (6, 4)) -> Path:
    """An archived file of about 3 kB."""
    facts = {"writer": "w", "index": "0", "stream_ids": "3,4"}
    segment = Segment.create(folder / "w-000000.arrow", SMALL, streams=2, rows=6, metadata=facts)
    for place, view in enumerate(segment.columns.values()):
        view[...] = (np.arange(view.size) * 7 + place).reshape(view.shape) % 50
    path = archive(segment.path, folder / "log", ends=np.array(counts) + 1, codec=codec)
    assert path is not None
    return path


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("actor-0.0-000003.arrow", ("actor-0.0", 3)),
        ("a-1234567.arrow", ("a", 1234567)),
        (".actor-0.0-000003.arrow.17", None),
        (".actor-0.0-000003.arrow", None),
        ("actor-0.0.free-000003", None),
        ("draws-0-0-0.arrows", None),
        ("actor.ends", None),
        ("-000003.arrow", None),
    ],
)
def test_a_segment_is_known_by_its_name(name: str, place: tuple[str, int] | None):
    assert place_of(Path("somewhere") / name) == place


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3 * ROWS), min_size=1, max_size=3), st.sampled_from(CODECS))
def test_complete_rows_come_back(tmp_path_factory: pytest.TempPathFactory, complete: list[int], codec: Codec):
    folder = tmp_path_factory.mktemp("archive")
    live = Live(folder, streams=tuple(range(7, 7 + len(complete)))).grow(*complete)
    for index in range(max(complete) // ROWS + 1):
        streams, rows = numbers(live, index)
        path = archive(live.path(index), folder / "log", ends=live.ends, codec=codec)
        assert (path is None) == (len(rows) == 0)
        if path is not None:
            check(read_archived(path), streams, rows)
            archived, raw = Segment.open(path), Segment.open(live.path(index))
            assert (archived.streams, archived.rows, archived.schema) == (raw.streams, raw.rows, raw.schema)
            complete_here = np.clip(live.ends - 1 - index * ROWS, 0, ROWS)
            for name, view in archived.columns.items():
                for slot, count in enumerate(complete_here):
                    np.testing.assert_array_equal(view[slot, :count], raw.columns[name][slot, :count])
                    assert not view[slot, count:].any()
                assert not view.flags.writeable


def test_the_file_says_what_it_holds(tmp_path: Path):
    live = Live(tmp_path).grow(20, 12)
    path = archive(live.path(1), tmp_path / "log", ends=live.ends)
    assert path == tmp_path / "log" / "actor-0.0-000001.arrow"
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_file(file)
        facts = {key.decode(): value.decode() for key, value in reader.schema.metadata.items()}
        assert reader.num_record_batches == 1
    assert {
        "writer": "actor-0.0",
        "index": "1",
        "stream_ids": "5,3",
        "streams": "2",
        "rows": "8",
    }.items() <= facts.items()
    assert facts["counts"] == "8,4"


def test_the_name_counts_and_not_what_a_file_that_is_used_again_still_says(tmp_path: Path):
    live = Live(tmp_path, rows=4).grow(11, 11)
    live.path(0).rename(live.path(2))  # of segment 2 by name, and of segment 0 by its metadata
    path = archive(live.path(2), tmp_path / "log", ends=live.ends)
    batch = read_archived(path)
    assert batch.column("row").to_pylist() == [8, 9, 10] * 2
    assert batch.schema.metadata[b"index"] == b"2"


def test_columns_are_read_alone(tmp_path: Path):
    path = small(tmp_path, "lz4")
    assert read_archived(path, ["reward"]).schema.names == ["reward"]
    with pytest.raises(SchemaError, match=r"w-000000\.arrow has no column nothing; it has stream, row, frame"):
        read_archived(path, ["nothing"])


def test_compression_makes_files_smaller(tmp_path: Path):
    sizes = {}
    for codec in CODECS:
        (tmp_path / codec).mkdir()
        live = Live(tmp_path / codec).grow(8, 8)
        sizes[codec] = archive(live.path(0), tmp_path / codec / "log", ends=live.ends, codec=codec).stat().st_size
    assert max(sizes["lz4"], sizes["zstd"]) < sizes["none"]


@pytest.mark.parametrize("read", [read_archived, Segment.open])
@pytest.mark.parametrize("codec", CODECS)
def test_no_flipped_byte_goes_unnoticed(tmp_path: Path, codec: Codec, read):
    path = small(tmp_path, codec)
    good, wanted = path.read_bytes(), read(path)

    @settings(max_examples=150)
    @given(st.integers(0, len(good) - 1), st.integers(1, 255))
    def flip(position: int, change: int) -> None:
        path.write_bytes(good[:position] + bytes([good[position] ^ change]) + good[position + 1 :])
        try:
            got = read(path)
        except CorruptSegment as error:
            assert str(path) in str(error) and "remove it" in str(error)
        else:
            assert contents(got) == contents(wanted)

    flip()


def contents(found: pa.RecordBatch | Segment) -> dict[str, list]:
    if isinstance(found, Segment):
        return {name: view.tolist() for name, view in found.columns.items()}
    return found.to_pydict()


@pytest.mark.parametrize("codec", CODECS)
def test_a_file_cut_short_anywhere_is_named(tmp_path: Path, codec: Codec):
    path = small(tmp_path, codec)
    good = path.read_bytes()
    for length in [*range(0, len(good), 37), len(good) - 1]:
        path.write_bytes(good[:length])
        for read in (read_archived, Segment.open):
            with pytest.raises(CorruptSegment, match=r"w-000000\.arrow is damaged"):
                read(path)


def test_a_damaged_column_is_named_and_the_others_can_be_read(tmp_path: Path):
    path = small(tmp_path, "none", counts=(6, 6))
    frames = Segment.open(path).columns["frame"].tobytes()
    good = path.read_bytes()
    begin = good.index(frames)
    path.write_bytes(good[: begin + 5] + bytes([good[begin + 5] ^ 1]) + good[begin + 6 :])
    with pytest.raises(CorruptSegment, match=r'w-000000\.arrow is damaged \(column "frame": its checksum'):
        read_archived(path)
    assert read_archived(path, ["reward", "row"]).num_rows == 12


def test_what_was_never_a_segment_is_named(tmp_path: Path):
    (tmp_path / "a-000000.arrow").write_bytes(b"hello")
    for read in (read_archived, Segment.open):
        with pytest.raises(CorruptSegment, match=r"a-000000\.arrow"):
            read(tmp_path / "a-000000.arrow")
    live = Live(tmp_path / "live").grow(3, 3)
    with pytest.raises(CorruptSegment, match="not an archived segment"):
        read_archived(live.path(0))
    with pytest.raises(FileNotFoundError):
        read_archived(tmp_path / "b-000000.arrow")


def test_an_archived_segment_cannot_be_opened_for_writing_and_a_live_one_can(tmp_path: Path):
    live = Live(tmp_path).grow(20, 20)
    path = archive(live.path(0), tmp_path / "log", ends=live.ends)
    with pytest.raises(ValueError, match="never changed"):
        Segment.open(path, writable=True)
    Segment.open(live.path(0), writable=True).columns["reward"][1, 2] = 17
    assert live.segments[0].columns["reward"][1, 2] == 17


@pytest.mark.parametrize(
    ("ends", "name", "words"),
    [([3], "a-000000.arrow", "2 slots, got the ends of 1"), ([3, 3], "a.arrow", "not named WRITER-000000.arrow")],
)
def test_what_does_not_say_whose_rows_it_holds_is_refused(tmp_path: Path, ends: list[int], name: str, words: str):
    live = Live(tmp_path).grow(5, 5)
    live.path(0).rename(tmp_path / name)
    with pytest.raises(ValueError, match=words):
        archive(tmp_path / name, tmp_path / "log", ends=np.array(ends))


def test_a_segment_without_stream_ids_is_refused(tmp_path: Path):
    segment = Segment.create(tmp_path / "a-000000.arrow", SCHEMA, streams=2, rows=4)
    with pytest.raises(ValueError, match="does not say which streams"):
        archive(segment.path, tmp_path / "log", ends=np.array([3, 3]))


def test_no_room_is_an_error_and_leaves_nothing(tmp_path: Path):
    live, log = Live(tmp_path / "live").grow(20, 20), tmp_path / "log"
    result = limited(live, 0, log, "tell")
    assert result.returncode == 0, result.stderr
    assert f"{log} has no room for archived rows" in result.stdout
    assert list(log.iterdir()) == []


def test_no_room_keeps_the_file_that_was_there(tmp_path: Path):
    live, log = Live(tmp_path / "live").grow(3, 3), tmp_path / "log"
    archive(live.path(0), log, ends=live.ends)
    live.grow(20, 20)
    limited(live, 0, log, "tell")
    assert read_archived(log / live.path(0).name).num_rows == 6


def test_a_death_in_mid_write_leaves_no_file_of_the_name(tmp_path: Path):
    live, log = Live(tmp_path / "live").grow(20, 20), tmp_path / "log"
    result = limited(live, 0, log, "kill")
    assert result.returncode == -signal.SIGXFSZ
    (torn,) = log.iterdir()
    assert torn.name.startswith(".actor-0.0-000000.arrow.") and place_of(torn) is None
    (log / f".actor-9.0-000000.arrow.{os.getpid()}").touch()  # somebody is writing it
    assert salvage(live.folder, log) == (40 + 2, [])  # and the open rows
    assert {path.name for path in log.iterdir() if place_of(path) is None} == {f".actor-9.0-000000.arrow.{os.getpid()}"}


def test_others_read_the_file_without_us(tmp_path: Path):
    live = Live(tmp_path).grow(20, 12)
    path = archive(live.path(1), tmp_path / "log", ends=live.ends, codec="zstd")
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    table.validate(full=True)
    check(table.to_batches()[0], *numbers(live, 1))
    assert table.column("observation").type == pa.fixed_shape_tensor(pa.uint8(), (20, 30))


def test_pandas_reads_the_file(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    live = Live(tmp_path).grow(20, 12)
    frame = pandas.read_feather(
        archive(live.path(1), tmp_path / "log", ends=live.ends), columns=["row", "stream", "reward"]
    )
    streams, rows = numbers(live, 1)
    assert frame["row"].tolist() == rows.tolist() and frame["stream"].tolist() == streams.tolist()
    assert frame["reward"].tolist() == expected(streams, rows)["reward"].tolist()


def test_polars_reads_the_file(tmp_path: Path):
    polars = pytest.importorskip("polars")
    live = Live(tmp_path).grow(20, 12)
    path = archive(live.path(1), tmp_path / "log", ends=live.ends)
    frame = polars.read_ipc(path, columns=["row", "reward"])
    assert frame["row"].to_list() == numbers(live, 1)[1].tolist()


def test_duckdb_reads_the_file(tmp_path: Path):
    duckdb = pytest.importorskip("duckdb")
    live = Live(tmp_path).grow(20, 12)
    with pa.memory_map(str(archive(live.path(1), tmp_path / "log", ends=live.ends))) as file:
        table = pa.ipc.open_file(file).read_all().select(["stream", "row", "reward"])
    with duckdb.connect() as connection:
        connection.register("rows_of_file", table)
        assert connection.sql("select count(*), max(row) from rows_of_file").fetchall() == [(12, 15)]


def test_a_file_that_does_not_count_its_rows_is_read_all_the_same(tmp_path: Path):
    live = Live(tmp_path).grow(20, 12)
    path = archive(live.path(1), tmp_path / "log", ends=live.ends)
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    facts = {name: value for name, value in table.schema.metadata.items() if name not in (b"counts", b"checksum")}
    table = table.replace_schema_metadata(facts)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    check(read_archived(path), *numbers(live, 1))
    assert read_facts(path).counts == (8, 4)
    assert Segment.open(path).columns["observation.place"][1, 3].tolist() == [3, 11]


def test_an_archivist_knows_what_it_holds(tmp_path: Path):
    live, log = Live(tmp_path / "live").grow(20, 5), tmp_path / "log"
    archivist = Archivist(log)
    archivist.close()
    assert not archivist.holds(live.path(0)) and archivist.holds(live.folder / "a-000000.arrow") is False
    archive(live.path(0), log, ends=np.array([4, 4]))
    assert not archivist.holds(live.path(0))  # two rows are missing
    archive(live.path(0), log, ends=live.ends)
    assert not archivist.holds(live.path(0))  # the open row of the second slot is missing
    archive(live.path(0), log, ends=live.ends + 1)
    assert archivist.holds(live.path(0))
    live.grow(20, 6)
    assert not archivist.holds(live.path(0))
    live.path(0).unlink()
    assert archivist.holds(live.path(0))  # there is nothing else any more
    archive(live.path(1), log, ends=live.ends)
    (live.folder / "actor-0.0.ends").unlink()
    assert archivist.holds(live.path(1)) and not archivist.holds(live.path(2))


def test_an_archivist_takes_segments_in_order_and_says_which_are_done(tmp_path: Path):
    live = Live(tmp_path / "live", rows=4).grow(23, 23)
    archivist = Archivist(tmp_path / "log", "lz4", None)
    for index in range(6):
        archivist.submit(live.path(index), live.ends)
    archivist.close()
    archivist.close()
    assert archivist.finished() == [live.path(index) for index in range(6)]
    assert archivist.finished() == []
    files = sorted((tmp_path / "log").iterdir())
    assert [path.name for path in files] == [live.path(index).name for index in range(6)]
    assert archivist.bytes == sum(path.stat().st_size for path in files)
    assert [read_archived(path).num_rows for path in files] == [8] * 5 + [6]
    with pytest.raises(RuntimeError, match="closed"):
        archivist.submit(live.path(0), live.ends)


def test_a_segment_without_complete_rows_is_done_too(tmp_path: Path):
    live = Live(tmp_path / "live").grow(0, 0)
    archivist = Archivist(tmp_path / "log")
    archivist.submit(live.path(0), live.ends)
    archivist.close()
    assert archivist.finished() == [live.path(0)] and not list((tmp_path / "log").iterdir())


def test_an_archivist_tells_a_failure_once_and_goes_on(tmp_path: Path):
    live = Live(tmp_path / "live", rows=4).grow(12, 12)
    live.path(0).write_bytes(b"no segment")
    archivist = Archivist(tmp_path / "log")
    for index in (0, 1):
        archivist.submit(live.path(index), live.ends)
    archivist.close()
    with pytest.raises(CorruptSegment, match=r"actor-0\.0-000000\.arrow"):
        archivist.finished()
    assert archivist.finished() == [live.path(1)]


def test_the_oldest_segments_expire_and_draws_stay(tmp_path: Path):
    live, log = Live(tmp_path / "live", rows=4).grow(24, 24), tmp_path / "log"
    archive(live.path(0), log, ends=live.ends)
    size = (log / live.path(0).name).stat().st_size
    (log / "draws-0-0-0.arrows").write_bytes(bytes(10 * size))
    archivist = Archivist(log, "lz4", int(3.5 * size))
    for index in range(1, 6):
        archivist.submit(live.path(index), live.ends)
    archivist.close()
    assert archivist.finished() == [live.path(index) for index in range(1, 6)]
    left = sorted(path.name for path in log.iterdir())
    assert left == [*(live.path(index).name for index in (3, 4, 5)), "draws-0-0-0.arrows"]
    assert archivist.rows_expired == 3 * 8
    assert archivist.bytes <= 3.5 * size


def test_of_equally_old_segments_the_first_by_name_expires(tmp_path: Path):
    live, log = Live(tmp_path / "live", rows=4).grow(12, 12), tmp_path / "log"
    for index in (2, 0, 1):
        path = archive(live.path(index), log, ends=live.ends)
        os.utime(path, (5, 5))
    total = sum(path.stat().st_size for path in log.iterdir())
    rows, left = expire(log, total - 1)
    assert rows == 8 and left < total
    assert sorted(path.name for path in log.iterdir()) == [live.path(1).name, live.path(2).name]
    assert expire(log, None) == (0, left)


def test_a_dead_run_is_salvaged(tmp_path: Path):
    log = tmp_path / "log"
    first = Live(tmp_path / "live", "actor-0.0", (0, 1), rows=4).grow(10, 3)
    second = Live(tmp_path / "live", "actor-1.0", (2, 3), rows=4).grow(4, 4)
    (tmp_path / "live" / "actor-0.0.free-000007").write_bytes(b"to be written again")
    archive(first.path(0), log, ends=np.array([3, 3]))  # shorter than what is there
    archive(second.path(0), log, ends=second.ends)
    untouched = (log / second.path(0).name).stat().st_mtime_ns
    assert salvage(tmp_path / "live", log, "zstd") == (4 + 3 - 4 + 4 + 2 + 4, [])  # and the open rows
    for live, indices in ((first, (0, 1, 2)), (second, (0,))):
        for index in indices:
            check(read_archived(log / live.path(index).name), *numbers(live, index, with_open=live is first))
    assert (log / second.path(0).name).stat().st_mtime_ns == untouched
    assert salvage(tmp_path / "live", log) == (0, [])
    assert len(list(log.iterdir())) == 5


def test_what_cannot_be_salvaged_is_said_and_stops_nothing(tmp_path: Path):
    live, log = Live(tmp_path / "live", rows=4).grow(12, 12), tmp_path / "log"
    live.path(1).write_bytes(live.path(1).read_bytes()[:-100])
    other = Live(tmp_path / "live", "actor-1.0", rows=4).grow(2, 2)
    (tmp_path / "live" / "actor-1.0.ends").unlink()
    third = Live(tmp_path / "live", "actor-2.0", rows=4).grow(2, 2)
    (tmp_path / "live" / "actor-2.0.ends").write_bytes(b"torn")
    saved, problems = salvage(tmp_path / "live", log)
    assert saved == 16 + 2
    assert [any(str(path) in problem for problem in problems) for path in (live.path(1), other.path(0))] == [True, True]
    assert any("actor-2.0.ends" in problem for problem in problems) and len(problems) == 3, third
    assert sorted(path.name for path in log.iterdir()) == [live.path(index).name for index in (0, 2, 3)]


def test_a_damaged_archived_file_is_replaced(tmp_path: Path):
    live, log = Live(tmp_path / "live").grow(3, 3), tmp_path / "log"
    log.mkdir()
    (log / live.path(0).name).write_bytes(b"half a file")
    assert salvage(tmp_path / "live", log) == (6 + 2, [])
    assert read_archived(log / live.path(0).name).num_rows == 8


def test_a_run_that_left_nothing_has_nothing_to_save(tmp_path: Path):
    (tmp_path / "segments").symlink_to(tmp_path / "gone")
    assert salvage(tmp_path / "segments", tmp_path / "log") == (0, [])
    assert salvage(tmp_path / "nowhere", tmp_path / "log") == (0, [])


def test_a_full_disk_stops_the_salvage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    live = Live(tmp_path / "live").grow(3, 3)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("replay.archiving.Path.replace", refuse)
    with pytest.raises(StoreFull, match="log has no room"):
        salvage(live.folder, tmp_path / "log")
    assert list((tmp_path / "log").iterdir()) == []
