"""The log says of every draw what was handed out, once, whoever died meanwhile."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from replay import Shard, Table
from replay.draw_log import SCHEMA, DrawLog, read_draws
from replay.ids import shard_of
from replay.journal import Journal
from replay.recovery import Recorder, recover
from tests.replay.store import Messages

TABLES = {
    "fresh": Table(batch=4, window=3, stride=2, lead=2, remove="fifo"),
    "any": Table(batch=8, arity=2, select="prioritised", lead=1, within=("episode",)),
}


class Logged:
    """A shard with a journal and a log of draws, and what it handed out."""

    def __init__(self, folder: Path, *, start: int = 0) -> None:
        self.folder, self.start = folder, start
        self.shard = Shard(TABLES, shards=2, index=1, seed=0)
        self.writers = [Messages(name, streams, self.commit, watch=("episode",)) for name, streams in NAMES]
        self.wanted: list[dict] = []
        self.step = 0
        self.begin()

    def commit(self, commit) -> None:
        self.shard.commit(commit)

    def begin(self) -> None:
        self.log = DrawLog(self.folder / "log", start=self.start, shard=1)
        self.recorder = Recorder(self.shard, Journal(self.folder, "shard-1"), self.log)
        self.shard.told = self.log.write

    def draw(self, count: int) -> None:
        for _ in range(count):
            for place, writer in enumerate(self.writers):
                writer.block(3 + place, 5)
            draw = self.shard.draw(self.step)
            for name, items in draw.items.items():
                columns = {key: value.tolist() for key, value in vars(items).items()}
                for place, values in enumerate(zip(*columns.values(), strict=True)):
                    row = dict(zip(columns, values, strict=True)) | {"place": place}
                    self.wanted.append(row | {"step": self.step, "table": name, "writer": draw.writers[row["writers"]]})
            self.step += 1

    def die(self) -> None:
        """Lose what was not written."""
        self.close()
        log = DrawLog(self.folder / "log", start=self.start, shard=1)
        shard = recover(self.folder, "shard-1", told=log.write)
        assert shard is not None
        log.close()
        self.shard = shard
        self.begin()

    def close(self) -> None:
        """Let go of the files as they are."""
        self.log._file.close()
        self.recorder._journal.close()

    def logged(self) -> pa.Table:
        files = sorted((self.folder / "log").glob("*.arrows"), key=lambda path: int(path.stem.rpartition("-")[2]))
        return pa.concat_tables([read_draws(path) for path in files])


NAMES = [("a.0", [1, 4]), ("b.0", [3, 2])]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Logged]:
    """A shard of which nobody closes the files."""
    run = Logged(tmp_path)
    yield run
    run.close()


def check(logged: pa.Table, wanted: list[dict]) -> None:
    """That every draw is in the log once, with all that was handed out."""
    assert logged.schema == SCHEMA
    assert len(logged) == len(wanted)
    for row, of_draw in zip(logged.to_pylist(), wanted, strict=True):
        table = TABLES[row["table"]]
        assert row == {
            "start": 0,
            "step": of_draw["step"],
            "version": of_draw["step"] + 1,
            "table": of_draw["table"],
            "shard": 1,
            "place": of_draw["place"],
            "item": of_draw["ids"],
            "writer": of_draw["writer"],
            "stream": of_draw["streams"],
            "slot": of_draw["slots"],
            "row": of_draw["starts"],
            "lead": table.lead,
            "window": table.window,
            "kept": of_draw["kept"],
            "floor": of_draw["floors"],
            "probability": of_draw["probabilities"],
        }
    assert (shard_of(logged["item"].to_numpy()) == 1).all()


def test_the_log_has_what_was_handed_out(tmp_path: Path, run: Logged):
    run.draw(5)
    run.log.flush()
    check(run.logged(), run.wanted)
    run.draw(3)
    run.recorder.close()
    run.recorder.close()
    check(run.logged(), run.wanted)
    with pa.memory_map(str(next((tmp_path / "log").iterdir()))) as file:
        assert len(pa.ipc.open_stream(file).read_all()) == len(run.wanted)  # it has a proper end


@pytest.mark.parametrize(("name", "value"), [("SECONDS", 0.0), ("ROWS", 0)])
def test_draws_are_written_after_a_while_or_a_number(
    run: Logged, monkeypatch: pytest.MonkeyPatch, name: str, value: float
):
    monkeypatch.setattr("replay.draw_log.SECONDS", 1e9)
    run.draw(3)
    assert len(run.logged()) == 0
    monkeypatch.setattr(f"replay.draw_log.{name}", value)
    run.draw(1)
    check(run.logged(), run.wanted)


def test_draws_that_were_not_written_are_formed_again(run: Logged, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("replay.draw_log.SECONDS", 1e9)
    for draws in (4, 3, 0, 5):
        run.draw(draws)
        if draws == 3:
            run.log.flush()
            run.draw(2)
        run.die()
        check(run.logged(), run.wanted)
    run.recorder.snapshot()  # what is before it is not formed again
    run.draw(2)
    run.die()
    check(run.logged(), run.wanted)


def test_a_log_that_is_cut_at_any_byte_is_read_up_to_there(
    tmp_path: Path, run: Logged, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("replay.draw_log.ROWS", 0)
    run.draw(3)
    (path,) = (tmp_path / "log").iterdir()
    content, lengths = path.read_bytes(), []
    for length in range(0, len(content) + 1, 7):
        path.write_bytes(content[:length])
        found = read_draws(path)
        lengths.append(len(found))
        check(found, run.wanted[: len(found)])
    assert sorted(set(lengths)) == [0, *[len([w for w in run.wanted if w["step"] < step]) for step in (1, 2)]]
    assert lengths == sorted(lengths)
    path.write_bytes(content[: len(content) * 3 // 4])
    run.die()  # the lost ones are written into another file
    check(run.logged(), run.wanted)


def test_a_long_log_is_in_parts_of_which_the_oldest_go(tmp_path: Path, run: Logged, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("replay.draw_log.ROWS", 0)
    monkeypatch.setattr("replay.draw_log.PART_BYTES", 20_000)
    run.draw(40)
    check(run.logged(), run.wanted)
    whole = sum(path.stat().st_size for path in (tmp_path / "log").iterdir())
    assert len(list((tmp_path / "log").iterdir())) == 1 + whole // 20_000 > 3
    run.log._max_bytes = 50_000
    run.draw(20)
    sizes = [path.stat().st_size for path in (tmp_path / "log").iterdir()]
    assert 30_000 < sum(sizes) <= 50_000 + 20_000
    logged = run.logged()
    check(logged, run.wanted[-len(logged) :])
    run.die()
    run.draw(3)
    logged = run.logged()
    check(logged, run.wanted[-len(logged) :])


def test_every_start_of_a_run_has_files_of_its_own(tmp_path: Path):
    for start in (0, 0, 1):
        DrawLog(tmp_path, start=start, shard=1).close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "draws-0-1-0.arrows",
        "draws-0-1-1.arrows",
        "draws-1-1-0.arrows",
    ]
    assert all(read_draws(path).num_rows == 0 for path in tmp_path.iterdir())


FULL = """
import resource, sys
from pathlib import Path
from tests.replay.test_draw_log import Logged, check
run = Logged(Path(sys.argv[1]))
run.draw(2)
run.log.flush()
(path,) = (run.folder / "log").iterdir()
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 700, resource.RLIM_INFINITY))
run.shard.record = lambda told: None  # the journal would hit the limit, too
for _ in range(2):
    run.draw(1)
    try:
        run.log.flush()
    except OSError as error:
        print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run.draw(1)
run.log.close()
check(run.logged(), run.wanted)
"""


def test_a_full_disk_costs_no_draw(tmp_path: Path):
    """A limit on the size of files stands for the disk: a write is done in part, and then refused."""
    house = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=house)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(errno.EFBIG)] * 2


def test_items_of_one_batch_keep_their_order(run: Logged):
    run.draw(6)
    run.recorder.close()
    logged = run.logged().filter(pa.compute.field("table") == "any")
    for step in range(6):
        places = logged.filter(pa.compute.field("step") == step)["place"].to_numpy()
        np.testing.assert_array_equal(places, np.arange(8))


PLAIN = """
import sys
from pathlib import Path
from tests.replay.test_draw_log import Logged
run = Logged(Path(sys.argv[1]))
run.draw(2)
run.log.flush()
print("pandas" in sys.modules)
"""


def test_draws_are_written_without_pandas(tmp_path: Path) -> None:
    """Arrow imports it, where it is installed, to look at what it is given: half a second in the first draw."""
    done = subprocess.run([sys.executable, "-c", PLAIN, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
