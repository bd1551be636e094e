import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import journal
from replay.journal import HEAD, Journal, JournalError

RECORDS = [("commit", 1, b"x" * 40), ("form", 0), ("prioritise", "any", [0.5] * 9), ("finish", 7)]


def written(folder: Path, records: list[tuple] = RECORDS) -> Path:
    """A journal with a snapshot and these records."""
    kept = Journal(folder, "shard-0")
    kept.begin(3, b"state")
    for record in records:
        kept.append(record)
    kept.close()
    return folder / "shard-0-000000.journal"


def ends(path: Path, records: list[tuple] = RECORDS) -> list[int]:
    """Where the snapshot and each of the records end."""
    content, places = path.read_bytes(), []
    for count in range(len(records) + 1):
        whole = written(path.parent / f"of-{count}", records[:count]).read_bytes()
        assert content.startswith(whole)
        places.append(len(whole))
    return places


def test_records_come_back_in_order(tmp_path: Path):
    path = written(tmp_path / "new")
    assert list(journal.read(path)) == [("snapshot", 3, b"state"), *RECORDS]
    step, state, records = journal.replayed(tmp_path / "new", "shard-0") or (0, b"", iter(()))
    assert (step, state, list(records)) == (3, b"state", RECORDS)
    assert journal.replayed(tmp_path / "new", "shard-1") is None
    assert journal.names(tmp_path / "new") == ["shard-0"]


def test_a_tail_that_is_cut_at_any_byte_is_not_read(tmp_path: Path):
    path = written(tmp_path)
    content, places = path.read_bytes(), ends(path)
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = [("snapshot", 3, b"state"), *RECORDS][: sum(place <= length for place in places)]
        assert list(journal.read(path)) == whole
        assert (journal.replayed(tmp_path, "shard-0") is None) == (length < places[0])


def test_zeros_in_place_of_the_end_are_not_read(tmp_path: Path):
    """As a file system leaves them when the machine dies: it knew the length, and had not written the content."""
    path = written(tmp_path)
    content, places = path.read_bytes(), ends(path)
    for length in range(len(HEAD), len(content)):
        lost = content[:length].rstrip(b"\0")
        for zeros in (len(content) - len(lost), len(content) - len(lost) + 4096):
            path.write_bytes(lost + bytes(zeros))
            found = list(journal.read(path))
            assert found == [("snapshot", 3, b"state"), *RECORDS][: len(found)]
            assert len(found) >= sum(place <= len(lost) for place in places)


def test_a_flipped_bit_is_an_error_or_a_lost_last_record(tmp_path: Path):
    path = written(tmp_path)
    content, places = path.read_bytes(), ends(path)
    for place in range(len(content)):
        for bit in (1, 128):
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
            try:
                found = list(journal.read(path))
            except JournalError as error:
                assert str(path) in str(error)
                assert "remove it" in str(error)
            else:
                assert place >= places[-2]
                assert found == [("snapshot", 3, b"state"), *RECORDS[:-1]]


def test_what_is_no_journal_is_refused(tmp_path: Path):
    path = tmp_path / "shard-0-000000.journal"
    path.write_bytes(b"contrail journal 0\n" + bytes(99))
    with pytest.raises(JournalError, match="no journal of this version"):
        list(journal.read(path))
    content = written(tmp_path / "other").read_bytes()
    first = ends(tmp_path / "other" / path.name)[0]
    path.write_bytes(HEAD + content[first:])
    with pytest.raises(JournalError, match="begins with a 'commit' record, wanted a snapshot"):
        journal.replayed(tmp_path, "shard-0")


def test_a_journal_begins_again_and_goes_back(tmp_path: Path):
    kept = Journal(tmp_path, "shard-0")
    for step in (0, 4, 4, 9):
        kept.begin(step, b"state %d" % step)
        kept.append(("form", step))
        assert kept.size > kept.snapshot_size > 0
    for until, wanted in [(None, 9), (20, 9), (9, 9), (8, 4), (4, 4), (3, 0), (0, 0)]:
        step, state, records = journal.replayed(tmp_path, "shard-0", until) or (-1, b"", iter(()))
        assert (step, state, list(records)) == (wanted, b"state %d" % wanted, [("form", wanted)])
    assert journal.replayed(tmp_path, "shard-0", -1) is None


@given(steps=st.lists(st.integers(0, 5), min_size=1, max_size=8), again=st.booleans(), before=st.integers(0, 20))
def test_what_is_forgotten_is_not_needed(tmp_path_factory, steps: list[int], again: bool, before: int):
    folder = tmp_path_factory.mktemp("journal")
    kept, step, snapshots = Journal(folder, "shard-0"), 0, []
    for further in steps:
        step += further
        snapshots.append(step)
        kept.begin(step, b"")
    if again:
        kept.close()
        kept = Journal(folder, "shard-0")
    kept.forget(before)
    for until in range(before, step + 2):
        found = journal.replayed(folder, "shard-0", until)
        reached = [each for each in snapshots if each <= until]
        assert (found[0] if found else None) == (reached[-1] if reached else None)
    assert len(journal.files(folder, "shard-0")) == 1 + sum(each > before for each in snapshots[1:])
    kept.begin(step + 1, b"more")
    assert (journal.replayed(folder, "shard-0") or [None])[0] == step + 1


def test_a_snapshot_that_is_not_whole_is_not_seen(tmp_path: Path):
    path = written(tmp_path)
    (tmp_path / "shard-0-000001.partial").write_bytes(HEAD + b"half of a")
    assert journal.files(tmp_path, "shard-0") == [path]
    kept = Journal(tmp_path, "shard-0")
    kept.begin(5, b"whole")
    assert (journal.replayed(tmp_path, "shard-0") or [None])[0] == 5
    assert [each.name for each in journal.files(tmp_path, "shard-0")] == [path.name, "shard-0-000001.journal"]


def test_names_that_begin_alike_are_different_shards(tmp_path: Path):
    for name in ("shard-1", "shard-10", "shard"):
        Journal(tmp_path, name).begin(0, name.encode())
    assert journal.names(tmp_path) == ["shard", "shard-1", "shard-10"]
    assert (journal.replayed(tmp_path, "shard-1") or [0, None])[1] == b"shard-1"


FULL = """
import resource, sys
from replay.journal import Journal
kept = Journal(sys.argv[1], "shard-0")
kept.begin(0, b"state")
kept.append(("first",))
resource.setrlimit(resource.RLIMIT_FSIZE, (kept.size + 300, resource.RLIM_INFINITY))
for call in (lambda: kept.append(("second", bytes(1000))), lambda: kept.begin(1, bytes(1000))):
    size = kept.size
    try:
        call()
    except OSError as error:
        print(error.errno, kept.size == size)
kept.append(("third",))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kept.append(("second", 2))
"""


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path):
    """A limit on the size of files stands for the disk: a write is done in part, and then refused."""
    house = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=house)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == [f"{errno.EFBIG} True"] * 2
    assert os.listdir(tmp_path) == ["shard-0-000000.journal"]  # noqa: PTH208
    assert list(journal.read(tmp_path / "shard-0-000000.journal"))[1:] == [("first",), ("third",), ("second", 2)]
