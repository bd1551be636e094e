from pathlib import Path

import numpy as np
import pytest

from replay import Commit, SchemaError, Segment, Writer
from tests.replay.store import SCHEMA, Hand, rows_of


def ignore(commit: Commit) -> None:
    """A shard that takes no note."""


def writer(tmp_path: Path, **changes) -> Writer:
    return Writer(
        "a", SCHEMA, **({"streams": [0, 1], "folder": tmp_path, "rows_per_segment": 4, "commit": ignore} | changes)
    )


def test_rows_and_the_open_row_are_in_the_files(tmp_path: Path):
    hand = Hand("a", [5, 9], tmp_path, ignore, rows_per_segment=4)
    hand.block(6)
    commit = hand.sent[0]
    assert (commit.streams, commit.begins, commit.ends, commit.sequence) == ((5, 9), (0, 0), (7, 7), 0)
    assert [segment.path for segment in commit.segments] == [str(tmp_path / f"a-{n:06d}.arrow") for n in (0, 1)]
    first, second = (Segment.open(segment.path).columns for segment in commit.segments)
    for name, values in rows_of(np.array([[5], [9]]), np.arange(6)).items():
        np.testing.assert_array_equal(np.concatenate([first[name], second[name][:, :2]], axis=1), values)
    assert second["observation.place"][:, 2].tolist() == [[5, 6], [9, 6]]
    assert second["mask"][:, 2:].sum() == 0
    assert second["action"][:, 2:].sum() == 0


def test_the_open_row_is_completed_in_place(tmp_path: Path):
    hand = Hand("a", [5, 9], tmp_path, ignore)
    hand.block(2)
    view = Segment.open(hand.sent[0].segments[0].path).columns
    assert view["mask"].sum(axis=1).tolist() == [2, 2]
    hand.block(3, version=4)
    assert view["mask"].sum(axis=1).tolist() == [5, 5]
    assert view["action"][:, 2].tolist() == rows_of(np.array([5, 9]), np.array([2, 2]))["action"].tolist()
    assert (hand.sent[1].begins, hand.sent[1].ends, hand.sent[1].version) == ((2, 2), (6, 6), 4)


def test_the_mask_is_written_last(tmp_path: Path):
    read = []

    class Recorded(dict):
        def __getitem__(self, name: str) -> np.ndarray:
            read.append(name)
            return super().__getitem__(name)

    writer(tmp_path).append(Recorded(rows_of(np.array([0, 1]), np.array([0, 0]))))
    assert set(read) == set(SCHEMA.columns)
    # The type checker looks at a first entry now and then, so only where each name first comes is compared.
    assert max(SCHEMA.columns, key=read.index) == "mask"


def test_slots_advance_on_their_own(tmp_path: Path):
    hand = Hand("a", [5, 9, 7], tmp_path, ignore, rows_per_segment=4)
    for _ in range(5):
        hand.append(np.array([2, 0]))
    hand.append()
    hand.commit()
    assert hand.sent[0].ends == (7, 2, 7)
    views = [Segment.open(segment.path).columns["observation.place"] for segment in hand.sent[0].segments]
    got = np.concatenate(views, axis=1)
    for slot, (stream, end) in enumerate(zip([5, 9, 7], [7, 2, 7], strict=True)):
        assert got[slot, :end].tolist() == [[stream, number] for number in range(end)]


def test_a_commit_that_failed_is_covered_by_the_next(tmp_path: Path):
    sent = []

    def fail_once(commit: Commit) -> None:
        sent.append(commit)
        if len(sent) == 1:
            raise ConnectionError("no shard")

    hand = Hand("a", [0], tmp_path, fail_once)
    with pytest.raises(ConnectionError):
        hand.block(3)
    hand.block(3)
    assert [(commit.begins, commit.ends, commit.sequence) for commit in sent] == [((0,), (4,), 0), ((0,), (7,), 1)]


def test_close_unlinks_what_no_commit_named(tmp_path: Path):
    hand = Hand("a", [0], tmp_path, ignore, rows_per_segment=4)
    hand.block(2)
    for _ in range(4):
        hand.append()
    assert len(list(tmp_path.glob("*.arrow"))) == 2
    hand.writer.close()
    assert [path.name for path in tmp_path.glob("*.arrow")] == ["a-000000.arrow"]


def test_a_name_is_used_once(tmp_path: Path):
    Hand("a", [0], tmp_path, ignore).block(1)
    with pytest.raises(FileExistsError, match="new name"):
        writer(tmp_path)
    Hand("a-1", [0], tmp_path, ignore).block(1)  # another name, though it begins alike


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.zeros(2, np.float64)}, r'"reward": got float64 \(2,\), wanted float32 \(2,\)'),
        ({"observation": np.zeros((2, 20, 31), np.uint8)}, r'"observation": got .*31.*, wanted .*30'),
        ({"surprise": np.zeros(2)}, r'"surprise" is not in the schema'),
        ({"action": None}, r"lacks action"),
    ],
)
def test_the_first_append_is_checked(tmp_path: Path, change, message):
    row = rows_of(np.array([0, 1]), np.array([0, 0])) | change
    with pytest.raises(SchemaError, match=message):
        writer(tmp_path).append({name: value for name, value in row.items() if value is not None})


def test_the_open_row_is_checked(tmp_path: Path):
    row = rows_of(np.array([0, 1]), np.array([0, 0]))
    with pytest.raises(SchemaError, match=r"lacks observation\.place"):
        writer(tmp_path).commit({"observation": row["observation"]}, version=0)
    with pytest.raises(SchemaError, match="mask 1"):
        writer(tmp_path).commit(row, version=0)
