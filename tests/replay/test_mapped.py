"""What a reader has open: never more unpacked than it may, whatever was archived."""

from pathlib import Path

import pytest

from replay import Column, Schema, SchemaError
from replay.archive import archive
from replay.mapped import Mapped
from tests.replay.live import ROWS, Live
from tests.replay.store import SCHEMA

SEGMENTS = 6


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live(tmp_path / "live").grow(SEGMENTS * ROWS, SEGMENTS * ROWS)


@pytest.fixture
def archived(live: Live, tmp_path: Path) -> dict[tuple[str, int], str]:
    for index in range(SEGMENTS):
        archive(live.path(index), tmp_path / "log", ends=live.ends, codec="lz4")
    return {("w", index): str(tmp_path / "log" / live.path(index).name) for index in range(SEGMENTS)}


def size_of(paths: dict[tuple[str, int], str]) -> int:
    mapped = Mapped(SCHEMA)
    mapped.rows(dict([next(iter(paths.items()))]))
    return mapped.unpacked


def test_the_least_lately_read_leave_when_there_are_too_many(archived: dict) -> None:
    size = size_of(archived)
    mapped = Mapped(SCHEMA, 2 * size)
    first = mapped.rows({key: archived[key] for key in [("w", 0)]})[("w", 0)]
    for index in (1, 0, 2):  # 1 was read longer ago than 0
        mapped.rows({("w", index): archived[("w", index)]})
    assert mapped.unpacked == 2 * size
    again = mapped.rows({("w", 0): archived[("w", 0)]})[("w", 0)]
    assert again["observation.place"] is first["observation.place"], "it was unpacked again"
    mapped.close()
    assert mapped.unpacked == 0 and len(first["observation.place"]) == 2 * ROWS


def test_one_call_may_need_more_than_the_bound(archived: dict) -> None:
    mapped = Mapped(SCHEMA, size_of(archived))
    rows = mapped.rows(archived)
    assert len(rows) == SEGMENTS and mapped.unpacked == SEGMENTS * size_of(archived)
    mapped.rows({("w", 3): archived[("w", 3)]})
    assert mapped.unpacked == size_of(archived)


def test_what_is_not_compressed_is_mapped(live: Live, tmp_path: Path) -> None:
    path = archive(live.path(0), tmp_path / "plain", ends=live.ends, codec="none")
    mapped = Mapped(SCHEMA, 0)
    once = mapped.rows({("w", 0): str(path)})
    mapped.rows({("w", 1): str(live.path(1))})
    assert mapped.unpacked == 0 and mapped.rows({("w", 0): str(path)})[("w", 0)] is once[("w", 0)]


def test_live_segments_cost_nothing_and_stay_until_their_files_go(live: Live, archived: dict) -> None:
    mapped = Mapped(SCHEMA, 0)
    paths = {("w", index): str(live.path(index)) for index in range(SEGMENTS)}
    once = mapped.rows(paths)
    mapped.rows({("a", 0): archived[("w", 0)]})
    twice = mapped.rows(paths)
    assert mapped.unpacked == 0
    assert all(once[key]["observation.place"] is twice[key]["observation.place"] for key in paths)
    for index in range(SEGMENTS):
        live.path(index).unlink()
    while mapped._calls % 16:
        mapped.rows({})
    mapped.rows({})
    assert not mapped._open


def test_columns_that_differ_are_named(archived: dict) -> None:
    with pytest.raises(SchemaError, match='column "mask" is uint8'):
        Mapped(Schema({**SCHEMA.columns, "mask": Column("float64")})).rows(archived)
