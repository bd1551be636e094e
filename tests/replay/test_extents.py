import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.extents import Extents, ExtentsError
from replay.segment import StoreFull


@given(st.lists(st.tuples(st.integers(0, 2**62), st.lists(st.integers(0, 2**40), min_size=3, max_size=3)), max_size=5))
def test_what_was_written_last_is_read(tmp_path_factory: pytest.TempPathFactory, commits: list):
    path = tmp_path_factory.mktemp("extents") / "a.ends"
    extents, ends = Extents.create(path, 3), np.zeros(3, np.int64)
    wanted = (0, 0)
    for sequence, (version, growth) in enumerate(commits):
        ends = ends + np.array(growth)
        extents.write(sequence, version, ends)
        wanted = (sequence, version)
    sequence, version, got = Extents.read(path)
    assert (sequence, version) == wanted
    assert got.dtype == np.int64 and got.tolist() == ends.tolist()


def test_the_file_is_plain_little_endian_integers(tmp_path: Path):
    Extents.create(tmp_path / "a.ends", 2).write(4, 7, np.array([3, 300]))
    assert np.fromfile(tmp_path / "a.ends", "<i8").tolist() == [4, 7, 3, 300]
    assert [path.name for path in tmp_path.iterdir()] == ["a.ends"]


def test_a_new_file_says_that_nothing_is_complete(tmp_path: Path):
    Extents.create(tmp_path / "a.ends", 2)
    assert Extents.read(tmp_path / "a.ends")[2].tolist() == [0, 0]


def test_the_file_outlives_its_writer(tmp_path: Path):
    extents = Extents.create(tmp_path / "a.ends", 1)
    extents.write(0, 0, np.array([9]))
    extents.close()
    assert Extents.read(tmp_path / "a.ends")[2].tolist() == [9]


@pytest.mark.parametrize("ends", [[1, 2], [1, 2, 3, 4]])
def test_another_number_of_slots_is_refused(tmp_path: Path, ends: list[int]):
    extents = Extents.create(tmp_path / "a.ends", 3)
    with pytest.raises(ValueError, match=f"the ends of 3 slots, got {len(ends)}"):
        extents.write(0, 0, np.array(ends))


def test_ends_that_shrink_are_refused_and_change_nothing(tmp_path: Path):
    extents = Extents.create(tmp_path / "a.ends", 2)
    extents.write(1, 1, np.array([5, 5]))
    with pytest.raises(ValueError, match="only grow"):
        extents.write(2, 2, np.array([6, 4]))
    assert Extents.read(tmp_path / "a.ends")[2].tolist() == [5, 5]


@pytest.mark.parametrize("size", [0, 8, 16, 23, 25])
def test_a_short_file_is_named(tmp_path: Path, size: int):
    (tmp_path / "a.ends").write_bytes(bytes(size))
    with pytest.raises(ExtentsError, match=rf"a\.ends has {size} bytes.*remove it"):
        Extents.read(tmp_path / "a.ends")


def test_numbers_that_cannot_be_are_named(tmp_path: Path):
    np.array([0, 0, -1], "<i8").tofile(tmp_path / "a.ends")
    with pytest.raises(ExtentsError, match=r"a\.ends holds negative numbers"):
        Extents.read(tmp_path / "a.ends")


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Extents.read(tmp_path / "a.ends")


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("replay.extents.Path.replace", refuse)
    with pytest.raises(StoreFull, match="bytes free"):
        Extents.create(tmp_path / "a.ends", 1)
    assert list(tmp_path.iterdir()) == []


def test_readers_never_see_a_commit_before_its_rows(tmp_path: Path):
    extents, path, seen = Extents.create(tmp_path / "a.ends", 8), tmp_path / "a.ends", []

    def write() -> None:
        for sequence in range(1, 3000):
            extents.write(sequence, sequence, np.full(8, sequence << 20))

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        seen.append(Extents.read(path))
    thread.join()
    seen.append(Extents.read(path))
    for sequence, version, ends in seen:
        assert version >= sequence and (ends >= sequence << 20).all()
        assert (ends & ((1 << 20) - 1) == 0).all()  # no number is half of one and half of another
    assert seen[-1][0] == 2999
