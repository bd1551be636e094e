"""Stores that travel as files: what went out comes back, what is missing is filled in, what is wrong is named."""

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import importing
from replay.columns import array_of
from replay.exchange import ExchangeError, export_rows, format_of, import_file, import_pieces, pieces_of, read_columns
from replay.schema import DTYPES, ROW, Column, Schema, SchemaError
from replay.store import Store

GAMMA = 0.9
SCHEMA = Schema.of_rows(
    {"observation": Column("uint8", (4, 3)), "observation.place": Column("int64", (2,))},
    Column("int64"),
    {"value": Column("float32"), "core_state": Column("float32", (3,))},
)
Rows = dict[str, np.ndarray]


def rows_of(stream: int, lengths: list[int], schema: Schema = SCHEMA, *, cut: int = 0) -> Rows:
    """The rows of one stream: episodes of so many actions, each with its final row; the last `cut` rows are not there.

    Every second episode is truncated, the others terminate.
    """
    count = sum(lengths) + len(lengths)
    rng = np.random.default_rng(stream)
    rows = {name: random_values(rng, column, count) for name, column in schema.columns.items()}
    rows |= {name: np.zeros(count, ROW[name].dtype) for name in ("terminated", "truncated", "discounted_return")}
    rows |= {"log_prob": np.zeros(count, np.float32), "policy_version": np.zeros(count, np.int64)}
    rows |= {"mask": np.ones(count, np.uint8), "step": np.zeros(count, np.int32), "episode": np.zeros(count, np.int64)}
    row = 0
    for number, length in enumerate(lengths):
        total = 0.0
        for step in range(length + 1):
            rows["step"][row], rows["episode"][row] = step, (stream << 32) + number
            if step < length:
                total = float(rows["reward"][row]) + GAMMA * total
                rows["discounted_return"][row] = total
            row += 1
        rows["truncated" if number % 2 else "terminated"][row - 2] = 1
        rows["mask"][row - 1] = rows["reward"][row - 1] = 0
    return {name: values[: count - cut] for name, values in rows.items()}


def random_values(rng: np.random.Generator, column: Column, count: int) -> np.ndarray:
    shape = (count, *column.shape)
    if column.dtype.startswith("float"):
        return rng.standard_normal(shape).astype(column.dtype)
    limits = np.iinfo(column.dtype)
    return rng.integers(limits.min, limits.max, shape, column.dtype, endpoint=True)


def batch_of(rows: Rows, writer: str, stream: int, *, first: int = 0, schema: Schema = SCHEMA) -> pa.RecordBatch:
    """Rows as stores hand them out."""
    count = len(rows["mask"])
    place = [pa.array([writer] * count), pa.array(np.full(count, stream)), pa.array(np.arange(first, first + count))]
    arrays = [array_of(column.arrow(), count, pa.py_buffer(rows[name])) for name, column in schema.columns.items()]
    return pa.record_batch([*place, *arrays], names=["writer", "stream", "row", *schema.columns])


def stored(store: Path) -> dict[int, Rows]:
    """All rows of an imported store by stream, as its files have them; checks what the files say of themselves."""
    streams: dict[int, list[Rows]] = {}
    assert Store.open(store).verify() == Store.open(store).dataset().count_rows() > 0
    for path in sorted((store / "log").iterdir()):
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            assert reader.num_record_batches == 1
            batch, facts = reader.get_batch(0), {k.decode(): v.decode() for k, v in reader.schema.metadata.items()}
        schema = Schema.from_arrow(pa.schema([field for field in batch.schema if field.name not in ("stream", "row")]))
        columns = {name: as_array(batch.column(name)) for name in batch.schema.names}
        assert path.name == f"{facts['writer']}-{int(facts['index']):06d}.arrow"
        assert facts["streams"] == "1" and set(columns["stream"]) == {int(facts["stream_ids"])}
        start = int(facts["index"]) * int(facts["rows"])
        assert columns["row"].tolist() == list(range(start, start + len(batch)))
        assert 0 < len(batch) <= int(facts["rows"])
        crc = json.loads(facts["crc"])
        assert all(crc[name] == zlib.crc32(columns[name].tobytes()) for name in schema.columns)
        streams.setdefault(int(facts["stream_ids"]), []).append({name: columns[name] for name in schema.columns})
    return {
        stream: {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for stream, parts in streams.items()
    }


def as_array(array: pa.Array) -> np.ndarray:
    return array.to_numpy_ndarray() if isinstance(array, pa.FixedShapeTensorArray) else array.to_numpy()


def assert_same(found: Rows, wanted: Rows) -> None:
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.fixture
def recorded() -> tuple[list[Rows], list[pa.RecordBatch]]:
    """Two writers, three streams; the first two take turns, in segments of 5 rows, as they were recorded."""
    streams = [rows_of(0, [4, 7, 2]), rows_of(1, [3, 9], cut=4), rows_of(2, [6])]
    batches = []
    for start in range(0, 16, 5):
        for number in (0, 1):
            part = {name: values[start : start + 5] for name, values in streams[number].items()}
            batches.append(batch_of(part, "actor-0.0", number, first=start))
    batches.append(batch_of(streams[2], "actor-1.0", 2))
    return streams, batches


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_what_comes_back_is_what_went_out(kind: str, recorded, tmp_path: Path) -> None:
    streams, batches = recorded
    path = tmp_path / "deep" / f"rows.{kind}"
    assert format_of(path) == kind
    count = sum(len(rows["mask"]) for rows in streams)
    assert export_rows(batches, path, kind) == count
    imported = import_file(path, tmp_path / "store", kind)
    assert imported.schema == SCHEMA
    assert (imported.rows, imported.streams) == (count, 3)
    assert imported.decisions == sum(int(rows["mask"].sum()) for rows in streams)
    found = stored(tmp_path / "store")
    for stream, rows in enumerate(streams):
        assert_same(found[stream], rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "store"], "something was left behind"


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_every_dtype_comes_back_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    extras = {f"{dtype}.{len(shape)}": Column(dtype, shape) for dtype in DTYPES for shape in ((), (2,), (2, 3))}
    schema = Schema.of_rows({"observation": Column("float64", (2,))}, Column("float32", (3,)), extras)
    rows = rows_of(0, [5, 6], schema)
    for name, column in extras.items():
        if column.dtype.startswith("float"):
            rows[name].flat[:4] = [np.nan, np.inf, -np.inf, np.finfo(column.dtype).tiny]
        else:
            limits = np.iinfo(column.dtype)
            rows[name].flat[:2] = [limits.min, limits.max]
    export_rows([batch_of(rows, "a", 0, schema=schema)], tmp_path / "rows", kind)
    assert import_file(tmp_path / "rows", tmp_path / "store", kind).schema == schema
    assert_same(stored(tmp_path / "store")[0], rows)


def test_a_store_becomes_a_store_without_a_file(recorded, tmp_path: Path) -> None:
    streams, batches = recorded
    import_pieces(pieces_of(batches, "here"), tmp_path / "store", codec="zstd")
    found = stored(tmp_path / "store")
    for stream, rows in enumerate(streams):
        assert_same(found[stream], rows)


def interleaved(draw: st.DrawFn, lengths: list[int]) -> Iterator[tuple[int, int, int]]:
    """Pieces (stream, start, end) of streams of such lengths, in any order of streams."""
    done = [0] * len(lengths)
    while any(done[stream] < length for stream, length in enumerate(lengths)):
        stream = draw(st.sampled_from([s for s, length in enumerate(lengths) if done[s] < length]))
        end = draw(st.integers(done[stream] + 1, lengths[stream]))
        yield stream, done[stream], end
        done[stream] = end


@given(data=st.data(), segment=st.integers(1, 12), held=st.integers(1, 40))
def test_any_order_of_streams_gives_the_same_rows_in_bounded_memory(
    data: st.DataObject, segment: int, held: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    streams = [rows_of(number, [3, 2, 4], cut=number) for number in range(3)]
    order = list(interleaved(data.draw, [len(rows["mask"]) for rows in streams]))
    together = data.draw(st.integers(1, 5))
    parts = [
        batch_of({k: v[start:end] for k, v in streams[stream].items()}, "w", stream, first=start)
        for stream, start, end in order
    ]
    joined = [pa.concat_batches(parts[at : at + together]) for at in range(0, len(parts), together)]
    most = 0

    class Watched(importing._Importer):
        def add(self, piece) -> None:
            nonlocal most
            super().add(piece)
            most = max(most, sum(stream.held for stream in self._streams.values()))

    store = tmp_path_factory.mktemp("any") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "SEGMENT_BYTES", segment * SCHEMA.row_bytes)
        patch.setattr(importing, "HELD_BYTES", held * SCHEMA.row_bytes)
        patch.setattr(importing, "_Importer", Watched)
        import_pieces(pieces_of(joined, "here"), store)
    seen = list(dict.fromkeys(stream for stream, _, _ in order))
    found = stored(store)
    for new, old in enumerate(seen):
        assert_same(found[new], streams[old])
    assert most <= held + 3 * segment


PLAIN = ("observation", "action", "reward", "terminated", "truncated")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("end", ["mask", "step", "episode"])
def test_what_is_missing_is_filled_in(kind: str, end: str, tmp_path: Path) -> None:
    schema = Schema.of_rows({"observation": Column("float32", (3,))}, Column("float32", (2,)))
    rows = rows_of(0, [4, 1, 6], schema)
    table = {name: rows[name].tolist() for name in (*PLAIN, end)}
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(table), path)
    else:
        lines = [json.dumps(dict(zip(table, values, strict=True))) for values in zip(*table.values(), strict=True)]
        path.write_text("\n".join(lines) + "\n\n")
    declared = {"observation": schema.columns["observation"]} if kind == "parquet" else {}
    imported = import_file(path, tmp_path / "store", kind, gamma=GAMMA, declared=declared)
    assert imported.schema == schema
    found = stored(tmp_path / "store")[0]
    np.testing.assert_allclose(found.pop("discounted_return"), rows.pop("discounted_return"), rtol=1e-6)
    assert_same(found, rows)


def test_what_is_missing_is_filled_in_across_pieces(tmp_path: Path) -> None:
    rows = rows_of(0, [4, 1, 6])
    kept = [name for name in SCHEMA.columns if name not in ROW] + ["reward", "terminated", "truncated", "mask"]
    whole = batch_of(rows, "w", 0).select(kept)
    import_pieces(pieces_of([whole.slice(at, 1) for at in range(len(whole))], "here"), tmp_path / "store", gamma=GAMMA)
    found = stored(tmp_path / "store")[0]
    np.testing.assert_allclose(found.pop("discounted_return"), rows.pop("discounted_return"), rtol=1e-6)
    assert_same(found, rows)


def test_a_stream_whose_beginning_was_not_kept(tmp_path: Path) -> None:
    rows = {name: values[4:] for name, values in rows_of(0, [4, 3]).items()}  # from the first final row on
    import_pieces(pieces_of([batch_of(rows, "w", 0, first=4)], "here"), tmp_path / "store")
    assert_same(stored(tmp_path / "store")[0], rows)


def test_tables_of_others_are_understood(tmp_path: Path) -> None:
    """Lists in lists, booleans, numbers of other dtypes, dictionary-encoded writers, rows that are nowhere numbered."""
    rows = rows_of(0, [3, 4])
    table = pa.table(
        {
            "writer": pa.array(["robot"] * 9).dictionary_encode(),
            "observation": pa.array(rows["observation"].tolist(), pa.list_(pa.list_(pa.uint8()))),
            "observation.place": pa.array(rows["observation.place"].tolist(), pa.list_(pa.int64(), 2)),
            "action": pa.array(rows["action"] % 3, pa.int32()),
            "reward": pa.array(rows["reward"], pa.float64()),
            "terminated": pa.array(rows["terminated"], pa.float32()),
            "truncated": pa.array(rows["truncated"].astype(bool)),
            "mask": pa.array(rows["mask"], pa.int64()),
            "flag": pa.array([True] * 9),
            "note": pa.array(["left out"] * 9),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    imported = import_file(tmp_path / "rows.parquet", tmp_path / "store", "parquet", ignore=("note",), gamma=GAMMA)
    wanted = Schema.of_rows(
        {name: SCHEMA.columns[name] for name in ("observation", "observation.place")},
        Column("int64"),
        {"flag": Column("uint8")},
    )
    assert imported.schema == wanted
    found = stored(tmp_path / "store")[0]
    assert_same(found, {name: rows[name] for name in ("observation", "observation.place", "reward", "mask", "step")})
    np.testing.assert_array_equal(found["action"], rows["action"] % 3)


def test_parquet_as_others_see_it(recorded, tmp_path: Path) -> None:
    streams, batches = recorded
    path = tmp_path / "rows.parquet"
    export_rows(batches, path, "parquet")
    table = pq.read_table(path)
    assert table.column_names == ["writer", "stream", "row", *SCHEMA.columns]
    field = table.schema.field("observation")
    assert field.type == pa.binary(12)
    assert field.metadata == {b"dtype": b"uint8", b"shape": b"[4, 3]"}
    described = json.loads(table.schema.metadata[b"contrail"])["columns"]
    assert described["observation"] == {"dtype": "uint8", "shape": [4, 3]}
    assert described["reward"] == {"dtype": "float32", "shape": []}
    raw = table.filter(pa.compute.equal(table["stream"], 2))["observation"].to_pylist()
    np.testing.assert_array_equal(np.frombuffer(raw[5], np.uint8).reshape(4, 3), streams[2]["observation"][5])
    assert pq.ParquetFile(path).metadata.row_group(0).column(3).compression == "ZSTD"


@pytest.mark.parametrize("lost", ["the file's", "the field's", "both"])
def test_raw_bytes_are_understood_by_either_metadata_or_by_hand(lost: str, recorded, tmp_path: Path) -> None:
    streams, batches = recorded
    export_rows(batches, tmp_path / "rows.parquet", "parquet")
    table = pq.read_table(tmp_path / "rows.parquet")
    fields = list(table.schema)
    if lost != "the file's":
        fields = [field.remove_metadata() for field in fields]
    table = table.cast(pa.schema(fields, table.schema.metadata if lost == "the field's" else None))
    pq.write_table(table, tmp_path / "other.parquet")
    declared = {}
    if lost == "both":
        with pytest.raises(ExchangeError, match=r'other.parquet: column "observation" is raw bytes, and nobody says'):
            import_file(tmp_path / "other.parquet", tmp_path / "store", "parquet")
        text = {"columns": {n: {"dtype": c.dtype, "shape": c.shape} for n, c in SCHEMA.columns.items() if c.shape}}
        (tmp_path / "columns.json").write_text(json.dumps(text))
        declared = read_columns(tmp_path / "columns.json")
    import_file(tmp_path / "other.parquet", tmp_path / "store", "parquet", declared=declared)
    assert_same(stored(tmp_path / "store")[1], streams[1])


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_folder_of_files_is_read_in_the_order_of_names(kind: str, tmp_path: Path) -> None:
    rows = rows_of(0, [4, 3, 5])
    whole = batch_of(rows, "w", 0)
    for number, start in enumerate(range(0, len(whole), 6)):
        export_rows([whole.slice(start, 6)], tmp_path / "rows" / f"{number:02d}.{kind}", kind)
    assert format_of(tmp_path / "rows") == kind
    import_file(tmp_path / "rows", tmp_path / "store", kind)
    assert_same(stored(tmp_path / "store")[0], rows)


def changed(name: str, row: int, value: object) -> Callable[[dict[str, list]], None]:
    def change(table: dict[str, list]) -> None:
        table[name][row] = value

    return change


def without(*names: str) -> Callable[[dict[str, list]], None]:
    def change(table: dict[str, list]) -> None:
        for name in names:
            del table[name]

    return change


def without_row(row: int) -> Callable[[dict[str, list]], None]:
    def change(table: dict[str, list]) -> None:
        for values in table.values():
            del values[row]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("row", 6, 7), "rows.parquet, row 6: row 7 of its stream comes after row 5: sort the file"),
        (without_row(6), "rows.parquet, row 6: row 7 of its stream comes after row 5"),
        (without("action"), "rows.parquet has no column action: it has observation"),
        (without("observation", "observation.place"), "rows.parquet has no column observation"),
        (without("reward", "truncated"), "has no column reward, truncated"),
        (without("mask", "step", "episode"), "has none of the columns mask, episode, step"),
        (changed("mask", 4, 1), "rows.parquet, row 4: the row after an end has mask 1: an episode's last observation"),
        (changed("mask", 2, 3), 'rows.parquet, row 2: column "mask" is neither 0 nor 1'),
        (changed("truncated", 4, 1), "row 4: a final observation ends its episode again"),
        (changed("step", 4, 0), "row 4: the row after an end has step 0"),
        (changed("episode", 4, 1), "row 4: the row after an end is of another episode"),
        (changed("episode", 2, 7), "row 2: another episode begins, but no end was marked"),
        (changed("reward", 3, None), 'rows.parquet, row 3: column "reward" is empty'),
        (changed("terminated", 3, 0.5), 'rows.parquet, row 3: column "terminated": 0.5 is no uint8'),
        (changed("mask", 3, -1), 'rows.parquet, row 3: column "mask": -1 is no uint8'),
        (changed("observation.place", 3, [1]), 'column "observation.place" holds lists of 2 and of 1 entries'),
        (changed("observation.place", 3, [1, None]), 'column "observation.place" has empty numbers in its lists'),
        (changed("terminated", 3, float("nan")), 'row 3: column "terminated": nan is no uint8'),
        (changed("reward", 3, 1e300), 'row 3: column "reward": 1e+300 is no float32'),
        (changed("episode", 3, 1e300), 'row 3: column "episode": 1e+300 is no int64'),
        (changed("value", 3, float("nan")), None),
        (lambda table: table.update(note=["x"] * 9), 'column "note" has Arrow type string, which no row can have'),
        (lambda table: table.update(start=[1] * 9), 'column "start" is a name that the sampler adds'),
    ],
)
def test_rows_that_cannot_be_right_are_named_and_leave_nothing(change, words: str | None, tmp_path: Path) -> None:
    rows = rows_of(0, [4, 3])
    table = {name: values.tolist() for name, values in rows.items()}
    table |= {"writer": ["w"] * 9, "stream": [0] * 9, "row": list(range(9))}
    change(table)
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    if words is None:
        import_file(tmp_path / "rows.parquet", tmp_path / "store", "parquet")
        return
    with pytest.raises((ExchangeError, SchemaError)) as failure:
        import_file(tmp_path / "rows.parquet", tmp_path / "store", "parquet")
    assert words in str(failure.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


GOOD = {"observation": [0.5, 1.0], "action": 1, "reward": 1, "terminated": False, "truncated": False, "mask": 1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "rows.jsonl, line 2: Expecting property name"),
        ("[1, 2]", "rows.jsonl, line 2: wanted an object of columns, got [1, 2]"),
        (json.dumps({**GOOD, "x": 1}), "row 1 and row 0 do not have the same columns: x"),
        (json.dumps({**GOOD, "observation": [0.5]}), 'row 1: column "observation" is no number, or has not the shape'),
        (json.dumps({**GOOD, "observation": [0.5, "x"]}), 'row 1: column "observation" is no number, or has not'),
        (json.dumps({**GOOD, "reward": None}), 'row 1: column "reward" is no number'),
        (json.dumps({**GOOD, "action": 1.5}), None),
        (json.dumps({**GOOD, "mask": 0.5}), 'row 1: column "mask": 0.5 is no uint8'),
    ],
)
def test_lines_that_cannot_be_right_are_named(line: str, words: str | None, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    if words is None:
        columns = import_file(path, tmp_path / "store", "jsonl").schema.columns
        assert columns["action"] == Column("float32")
        assert columns["observation"] == Column("float32", (2,))
        return
    with pytest.raises(ExchangeError) as failure:
        import_file(path, tmp_path / "store", "jsonl")
    assert words in str(failure.value)


def test_later_json_does_not_change_what_was_guessed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("replay.jsonlines.NUMBERS", 1)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "action": 1.5}) + "\n")
    with pytest.raises(ExchangeError, match=r'rows.jsonl, row 1: column "action": 1.5 is no int64'):
        import_file(path, tmp_path / "store", "jsonl")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_file_that_is_none(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    with pytest.raises(ExchangeError, match="there is no file"):
        import_file(path, tmp_path / "store", kind)
    path.write_bytes(b"\x00\x01\xff")
    with pytest.raises(ExchangeError, match=f"rows.{kind}"):
        import_file(path, tmp_path / "store", kind)
    path.write_bytes(b"")
    with pytest.raises(ExchangeError):
        import_file(path, tmp_path / "store", kind)
    path.unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExchangeError, match=f"holds no {kind} files"):
        import_file(tmp_path / "empty", tmp_path / "store", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    "text", ["[]", '{"columns": {"observation": {}}}', '{"columns": {"a": {"dtype": "str"}}}', "{"]
)
def test_columns_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "columns.json").write_text(text)
    with pytest.raises(ExchangeError, match=r"columns\.json"):
        read_columns(tmp_path / "columns.json")


def test_declared_columns_must_be_there(recorded, tmp_path: Path) -> None:
    export_rows(recorded[1], tmp_path / "rows.parquet", "parquet")
    with pytest.raises(ExchangeError, match="has no column pixels"):
        declared = {"pixels": Column("uint8")}
        import_file(tmp_path / "rows.parquet", tmp_path / "store", "parquet", declared=declared)


def test_nothing_is_overwritten(recorded, tmp_path: Path) -> None:
    path, store = tmp_path / "rows.parquet", tmp_path / "store"
    export_rows(recorded[1], path, "parquet")
    with pytest.raises(ExchangeError, match=r"rows\.parquet exists already"):
        export_rows(recorded[1], path, "parquet")
    store.mkdir()
    import_file(path, store, "parquet")  # an empty folder is as good as none
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*")}
    with pytest.raises(ExchangeError, match="store exists already"):
        import_file(path, store, "parquet")
    assert before == {file: file.stat().st_mtime_ns for file in store.rglob("*")}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_an_export_that_fails_leaves_nothing(kind: str, recorded, tmp_path: Path) -> None:
    def breaking() -> Iterator[pa.RecordBatch]:
        yield from recorded[1][:2]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        export_rows(breaking(), tmp_path / "rows", kind)
    with pytest.raises(ExchangeError, match="no rows to write"):
        export_rows([], tmp_path / "rows", kind)
    assert not list(tmp_path.iterdir())
