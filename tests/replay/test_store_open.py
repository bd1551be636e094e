import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from replay import Column, Schema, SchemaError, Segment
from replay.archive import CorruptSegment, archive, salvage
from replay.draw_log import SCHEMA as DRAWS
from replay.draw_log import DrawLogError
from replay.extents import Extents
from replay.segment import held
from replay.store import Store, StoreError
from tests.replay.live import Live, expected

Place = tuple[str, int, int]


def places(dataset: ds.Dataset) -> list[Place]:
    table = dataset.to_table(columns=["writer", "stream", "row"])
    return sorted(zip(*(table[name].to_pylist() for name in table.schema.names), strict=True))


def grown(live: Live) -> list[Place]:
    """What a writer has complete."""
    pairs = zip(live.streams, live.ends.tolist(), strict=True)
    return sorted((live.writer, stream, row) for stream, end in pairs for row in range(end - 1))


def check(dataset: ds.Dataset) -> None:
    """Every column is what its row should be."""
    table = dataset.to_table().combine_chunks()
    for name, values in expected(table["stream"].to_numpy(), table["row"].to_numpy()).items():
        column = table[name].chunk(0)
        got = column.to_numpy_ndarray() if isinstance(column, pa.FixedShapeTensorArray) else column.to_numpy()
        np.testing.assert_array_equal(got, values)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder whose segments live elsewhere."""
    (tmp_path / "run" / "replay").mkdir(parents=True)
    (tmp_path / "memory").mkdir()
    (tmp_path / "run" / "replay" / "segments").symlink_to(tmp_path / "memory")
    return tmp_path / "run"


def test_archived_and_live_rows_are_one_dataset(run: Path, tmp_path: Path):
    live = Live(tmp_path / "memory").grow(30, 21)
    other = Live(tmp_path / "memory", "actor-1.0", (2,)).grow(9)
    archive(live.path(0), run / "replay" / "log", ends=live.ends)
    archive(live.path(1), run / "replay" / "log", ends=live.ends)
    live.path(0).unlink()
    store = Store.open(run)
    dataset = store.dataset()
    assert dataset.schema.names[:4] == ["writer", "stream", "row", "observation"]
    assert places(dataset) == sorted(grown(live) + grown(other))
    check(dataset)
    assert [(file.writer, file.index, file.archived) for file in store.files()] == [
        *(("actor-0.0", 0, True), ("actor-0.0", 1, True), ("actor-0.0", 2, False), ("actor-0.0", 3, False)),
        *(("actor-1.0", 0, False), ("actor-1.0", 1, False)),
    ]
    assert store.schema == live.segments[3].schema
    assert dataset.to_table(filter=ds.field("writer") == "actor-1.0").num_rows == 9


@pytest.mark.parametrize("what", ["run", "run/replay"])
def test_a_store_is_found_in_a_run_and_in_its_replay_folder(run: Path, tmp_path: Path, what: str):
    live = Live(tmp_path / "memory").grow(3, 2)
    assert places(Store.open(tmp_path / what).dataset()) == grown(live)


def test_an_imported_store_is_a_folder_with_a_log(tmp_path: Path):
    live = Live(tmp_path / "live").grow(3, 2)
    archive(live.path(0), tmp_path / "data" / "log", ends=live.ends)
    store = Store.open(str(tmp_path / "data"))
    assert places(store.dataset()) == grown(live) and store.verify() == 5


def test_a_run_that_ended_has_a_link_to_nothing(run: Path, tmp_path: Path):
    live = Live(tmp_path / "memory").grow(3, 2)
    salvage(tmp_path / "memory", run / "replay" / "log")
    shutil.rmtree(tmp_path / "memory")
    open_rows = [(live.writer, stream, end - 1) for stream, end in zip(live.streams, live.ends.tolist(), strict=True)]
    assert places(Store.open(run).dataset()) == sorted(grown(live) + open_rows)


@pytest.mark.parametrize("what", ["nowhere", "empty"])
def test_where_there_is_no_store_is_said(tmp_path: Path, what: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match=rf"{what} (is not there|holds no store): wanted the folder of a run"):
        Store.open(tmp_path / what)


@pytest.mark.parametrize("complete", [None, (0, 0)])
def test_a_run_that_has_no_rows_yet_says_so(run: Path, tmp_path: Path, complete: tuple[int, int] | None):
    if complete:
        Live(tmp_path / "memory").grow(*complete)
    for ask in (Store.dataset, lambda store: store.schema):
        with pytest.raises(StoreError, match="replay holds no rows yet"):
            ask(Store.open(run))
    assert Store.open(run).files() == [] and Store.open(run).draws().num_rows == 0


def test_live_rows_are_not_copied(tmp_path: Path):
    live = Live(tmp_path / "replay" / "segments").grow(8, 8)
    table = Store.open(tmp_path).dataset().to_table(columns=["reward"])
    live.segments[0].columns["reward"][:] = 77  # no writer does this: it shows whose memory is read
    assert set(table["reward"].to_pylist()) == {77}


def test_only_columns_that_are_asked_for_are_read(tmp_path: Path):
    live, log = Live(tmp_path / "live").grow(8, 8), tmp_path / "data" / "log"
    path = archive(live.path(0), log, ends=live.ends, codec="zstd")
    begins = b"\x28\xb5\x2f\xfd"  # of every compressed column: stream, row, observation, ...
    parts = path.read_bytes().split(begins)
    path.write_bytes(begins.join(parts[:3]) + bytes(4) + begins.join(parts[3:]))
    store = Store.open(tmp_path / "data")
    assert store.dataset().to_table(columns=["reward", "row"]).num_rows == 16
    with pytest.raises(OSError, match="ZSTD"):
        store.dataset().to_table(columns=["observation"])
    with pytest.raises(CorruptSegment, match='column "observation"'):
        store.verify()


def test_plain_types_are_the_same_numbers(tmp_path: Path):
    live, log = Live(tmp_path / "replay" / "segments").grow(20, 12), tmp_path / "replay" / "log"
    archive(live.path(0), log, ends=live.ends)
    table = Store.open(tmp_path).dataset(plain=True).to_table()
    assert table.schema.field("core_state").type == pa.list_(pa.float32(), 3)
    streams, rows = table["stream"].to_numpy(), table["row"].to_numpy()
    wanted = expected(streams, rows)["core_state"]
    np.testing.assert_array_equal(np.array(table["core_state"].to_pylist()), wanted)


def test_plain_types_know_no_halves(tmp_path: Path):
    schema = Schema({"half": Column("float16"), "halves": Column("float16", (2, 2)), "mask": Column("uint8")})
    facts = {"writer": "a", "index": "0", "stream_ids": "4"}
    (tmp_path / "segments").mkdir()
    for index in (0, 1):
        name = tmp_path / "segments" / f"a-{index:06d}.arrow"
        segment = Segment.create(name, schema, streams=1, rows=3, metadata=facts)
        segment.columns["half"][:], segment.columns["halves"][:] = 0.5, 1.5
    Extents.create(tmp_path / "segments" / "a.ends", 1).write(0, 0, np.array([6]))
    archive(tmp_path / "segments" / "a-000000.arrow", tmp_path / "log", ends=np.array([6]))
    table = Store.open(tmp_path).dataset(plain=True).to_table()
    assert table["half"].to_pylist() == [0.5] * 5 and table["halves"].to_pylist() == [[1.5] * 4] * 5


def test_columns_that_differ_are_named(tmp_path: Path):
    Live(tmp_path / "segments").grow(3, 3)
    facts = {"writer": "b", "index": "0", "stream_ids": "4"}
    schema = Schema({"reward": Column("float64"), "mask": Column("uint8")})
    Segment.create(tmp_path / "segments" / "b-000000.arrow", schema, streams=1, rows=3, metadata=facts)
    Extents.create(tmp_path / "segments" / "b.ends", 1).write(0, 0, np.array([3]))
    with pytest.raises(
        SchemaError, match=r'b-000000\.arrow: column "reward" is float64 \(\), but float32 \(\) in .*actor'
    ):
        Store.open(tmp_path).dataset()


def test_a_damaged_file_is_named(tmp_path: Path):
    live, log = Live(tmp_path / "live").grow(8, 8), tmp_path / "data" / "log"
    path = archive(live.path(0), log, ends=live.ends)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptSegment, match=str(path)):
        Store.open(tmp_path / "data").dataset()


def test_the_longer_of_a_live_and_an_archived_file_counts(tmp_path: Path):
    live, log = Live(tmp_path / "segments").grow(3, 3), tmp_path / "log"
    archive(live.path(0), log, ends=live.ends)
    live.grow(6, 5)
    (file,) = Store.open(tmp_path).files()
    assert (file.archived, file.counts) == (False, (6, 5))
    archive(live.path(0), log, ends=live.ends)
    (file,) = Store.open(tmp_path).files()
    assert (file.archived, file.counts) == (True, (6, 5))


def test_a_dataset_outlives_the_files_that_it_was_made_of(tmp_path: Path):
    live, log = Live(tmp_path / "segments").grow(20, 20), tmp_path / "log"
    archive(live.path(0), log, ends=live.ends)
    wanted, dataset = grown(live), Store.open(tmp_path).dataset()
    shutil.rmtree(log)
    shutil.rmtree(tmp_path / "segments")
    assert places(dataset) == wanted
    check(dataset)


def test_a_dataset_has_no_archived_file_open(tmp_path: Path):
    live = Live(tmp_path / "segments", rows=1).grow(40, 40)
    for index in range(40):
        archive(live.path(index), tmp_path / "data" / "log", ends=live.ends)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    dataset = Store.open(tmp_path / "data").dataset()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert dataset.count_rows() == 80


def test_a_live_segment_that_is_not_held_has_no_file_open(tmp_path: Path):
    live = Live(tmp_path).grow(8, 8)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    segment = Segment.open(live.path(0))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert segment.columns["reward"].shape == (2, 8)


def test_what_a_reader_holds_is_not_written_again(tmp_path: Path):
    live = Live(tmp_path / "segments").grow(8, 8)
    dataset = Store.open(tmp_path).dataset()
    free = live.path(0).rename(live.folder / "actor-0.0.free-000000")
    assert held(free)
    del dataset
    assert not held(free)
    with pytest.raises(FileNotFoundError):
        Segment.open(live.path(0), hold=True)


def test_a_segment_that_its_writer_took_back_meanwhile_is_gone(tmp_path: Path):
    live = Live(tmp_path).grow(8, 8)
    another = Live(tmp_path / "another").grow(8, 8)
    path = live.path(0)
    with path.open("rb") as file:
        another.path(0).replace(path)  # between opening and locking the name went to another file
        from replay.segment import _hold

        with pytest.raises(FileNotFoundError, match="taken it back"):
            _hold(file, path)


def test_reading_goes_on_while_a_writer_writes_archives_and_writes_again(tmp_path: Path):
    live, log = Live(tmp_path / "segments", rows=4).grow(1, 1), tmp_path / "log"
    last = 120

    def write() -> None:
        for number in range(2, last):
            live.grow(number, number)
            if number % 4 == 0:
                index = number // 4 - 1
                archive(live.path(index), log, ends=live.ends)
                if index >= 2:  # as a table lets go of it
                    live.release(index - 2)

    thread = threading.Thread(target=write)
    thread.start()
    counts = []
    while thread.is_alive():
        before = live.ends.copy()
        dataset = Store.open(tmp_path).dataset()
        found = places(dataset)
        check(dataset)
        counts.append(len(found))
        rows = {stream: [row for _, other, row in found if other == stream] for stream in live.streams}
        for slot, stream in enumerate(live.streams):
            assert rows[stream] == list(range(len(rows[stream])))  # no hole, no row twice
            assert len(rows[stream]) >= before[slot] - 1
    thread.join()
    assert counts == sorted(counts) and live.ends.tolist() == [last, last]
    assert places(Store.open(tmp_path).dataset()) == grown(live)


def test_what_expires_in_between_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    live, log = Live(tmp_path / "live").grow(20, 20), tmp_path / "data" / "log"
    for index in (0, 1):
        archive(live.path(index), log, ends=live.ends)
    from replay import snapshot

    listed = snapshot._listed

    def and_then_expired(folder: Path | None) -> dict:
        found = listed(folder)
        (log / live.path(0).name).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(snapshot, "_listed", and_then_expired)
    assert [file.index for file in Store.open(tmp_path / "data").files()] == [1]


def test_what_moves_to_the_archive_in_between_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    live, log = Live(tmp_path / "segments").grow(8, 8), tmp_path / "log"
    from replay import snapshot

    read = snapshot._live

    def moved(path: Path, ends: dict) -> object:
        archive(path, log, ends=live.ends)
        path.unlink()
        return read(path, ends)

    monkeypatch.setattr(snapshot, "_live", moved)
    (file,) = Store.open(tmp_path).files()
    assert file.archived and file.counts == (8, 8)


def drawn(start: int, steps: range, *, shard: int = 0, windows: int = 2) -> pa.RecordBatch:
    rows = [(start, step, shard, place) for step in steps for place in range(windows)]
    columns = dict(zip(("start", "step", "shard", "place"), np.array(rows, np.int64).T, strict=True))
    blank = {"table": ["fresh"] * len(rows), "writer": ["actor-0.0"] * len(rows)}
    zeros = np.zeros(len(rows))
    arrays = [
        pa.array(columns.get(field.name, blank.get(field.name, zeros)), field.type, safe=False) for field in DRAWS
    ]
    return pa.record_batch(arrays, schema=DRAWS)


def log_draws(folder: Path, name: str, *batches: pa.RecordBatch, cut: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, DRAWS)
    for batch in batches:
        writer.write_batch(batch)
    content = sink.getvalue().to_pybytes()
    (folder / name).write_bytes(content[: len(content) - cut])


def steps(store: Store) -> list[tuple[int, int]]:
    table = store.draws()
    return sorted(set(zip(table["start"].to_pylist(), table["step"].to_pylist(), strict=True)))


def test_draws_of_all_shards_are_one_table(tmp_path: Path):
    log = tmp_path / "log"
    log_draws(log, "draws-0-0-0.arrows", drawn(0, range(2)), drawn(0, range(2, 4)))
    log_draws(log, "draws-0-1-0.arrows", drawn(0, range(4), shard=1))
    table = Store.open(tmp_path).draws()
    assert table.schema == DRAWS and table.num_rows == 16
    assert table["step"].to_pylist() == sorted(table["step"].to_pylist())
    assert table["shard"].to_pylist()[:4] == [0, 0, 1, 1]


def test_a_torn_tail_costs_the_batch_that_was_torn(tmp_path: Path):
    whole = drawn(0, range(2))
    for cut in range(1, 2000, 41):
        log_draws(tmp_path / "log", "draws-0-0-0.arrows", whole, drawn(0, range(2, 4)), cut=cut)
        assert steps(Store.open(tmp_path)) in ([(0, 0), (0, 1)], [(0, 0), (0, 1), (0, 2), (0, 3)], [])
    log_draws(tmp_path / "log", "draws-0-0-0.arrows", whole, drawn(0, range(2, 4)), cut=20)
    assert steps(Store.open(tmp_path)) == [(0, 0), (0, 1)]
    (tmp_path / "log" / "draws-0-1-0.arrows").touch()
    assert steps(Store.open(tmp_path)) == [(0, 0), (0, 1)]


def test_of_a_step_that_was_taken_again_the_last_start_counts(tmp_path: Path):
    log_draws(tmp_path / "log", "draws-0-0-0.arrows", drawn(0, range(6)))
    log_draws(tmp_path / "log", "draws-1-0-0.arrows", drawn(1, range(3, 5)))
    assert steps(Store.open(tmp_path)) == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4)]
    log_draws(tmp_path / "log", "draws-2-0-0.arrows", drawn(2, range(3, 4)))
    assert steps(Store.open(tmp_path)) == [(0, 0), (0, 1), (0, 2), (2, 3)]


def test_a_log_of_draws_without_their_columns_is_named(tmp_path: Path):
    (tmp_path / "log").mkdir()
    batch = pa.record_batch({"step": pa.array([1])})
    with (
        pa.OSFile(str(tmp_path / "log" / "draws-0-0-0.arrows"), "wb") as file,
        pa.ipc.new_stream(file, batch.schema) as out,
    ):
        out.write_batch(batch)
    with pytest.raises(DrawLogError, match=r"draws-0-0-0\.arrows is no log of draws"):
        Store.open(tmp_path).draws()
