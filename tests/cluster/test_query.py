"""What contrail query answers, and what it says where it cannot."""

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.metrics import Metrics
from replay import Column, Schema, Segment
from replay.archive import archive, read_archived
from replay.draw_log import SCHEMA as DRAWS
from replay.extents import Extents
from tests.cluster.commands import HOUSE, Contrail, start

pytest.importorskip("duckdb")

SCHEMA = Schema.of_rows({"observation": Column("uint8", (4, 5))}, Column("int64"), {"half": Column("float16")})
LENGTHS, ROWS = (3, 2, 4), 6
"""Decisions of the episodes of each stream; each has one row more. The last one goes on."""


def episodes() -> Iterator[dict[str, float]]:
    """The rows of one stream: rewards 1, 2, 3 ... and versions that rise by one every four rows."""
    for episode, length in enumerate(LENGTHS):
        ended = episode < len(LENGTHS) - 1
        for step in range(length + ended):
            last = ended and step == length - 1
            yield {
                "reward": step + 1.0 if step < length else 0.0,
                "terminated": last and episode == 0,
                "truncated": last and episode == 1,
                "mask": step < length,
                "episode": episode,
                "step": step,
            }


def fill(live: Path, writer: str) -> np.ndarray:
    """Segments of two streams, and their ends."""
    rows = list(episodes())
    facts = {"writer": writer, "stream_ids": "0,1"}
    for index in range(-(-len(rows) // ROWS)):
        segment = Segment.create(live / f"{writer}-{index:06d}.arrow", SCHEMA, streams=2, rows=ROWS, metadata=facts)
        for place, row in enumerate(rows[index * ROWS : (index + 1) * ROWS]):
            number = index * ROWS + place
            for name, value in {**row, "policy_version": number // 4, "half": 0.5}.items():
                segment.columns[name][:, place] = value
            segment.columns["observation"][:, place] = number
    ends = np.full(2, len(rows) + 1)
    Extents.create(live / f"{writer}.ends", 2).write(0, 1, ends)
    return ends


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that goes on: one segment archived, others live, two versions, two steps drawn."""
    folder = tmp_path / "runs" / "run"
    live, log = folder / "replay" / "segments", folder / "replay" / "log"
    live.mkdir(parents=True)
    (folder / "experiment.json").write_text("{}")
    ends = fill(live, "actor-0.0")
    archive(live / "actor-0.0-000000.arrow", log, ends=ends, codec="none")
    (live / "actor-0.0-000000.arrow").unlink()
    draw = {field.name: "fresh" if field.type == pa.string() else 0 for field in DRAWS}
    with pa.OSFile(str(log / "draws-0-0-0.arrows"), "wb") as file, pa.ipc.new_stream(file, DRAWS) as out:
        out.write_batch(
            pa.RecordBatch.from_pylist([draw | {"step": step, "version": step + 1} for step in (0, 0, 1)], DRAWS)
        )
    with Metrics(folder) as metrics:
        metrics.write(10, {"train/version": 1, "train/value_loss": 0.5})
        metrics.write(20, {"train/version": 2, "train/value_loss": float("nan"), "rollout/ep_rew_mean": 3.0})
        metrics.write(20, {"eval/mean_reward": 7.0})
    return folder


@pytest.fixture
def ask(run: Path, contrail: Contrail):
    """Asks the run; the answer as Python values."""

    def answer(sql: str, *flags: object) -> list[dict]:
        outcome = contrail("query", run, sql, "--format", "json", *flags)
        assert outcome.code == 0, outcome.error
        return json.loads(outcome.out)

    return answer


def test_rows_are_all_complete_rows(ask):
    total = 2 * sum(1 for _ in episodes())
    assert ask("select count(*) as n, count(distinct row) as places, min(row) as low from rows") == [
        {"n": total, "places": total // 2, "low": 0}
    ]
    assert ask("select distinct writer, stream from rows order by all") == [
        {"writer": "actor-0.0", "stream": stream} for stream in (0, 1)
    ]
    assert ask("select observation[20] as pixel, half from rows where row = 7 and stream = 1") == [
        {"pixel": 7, "half": 0.5}
    ]


def test_episodes_are_put_together_over_segments(ask):
    got = ask("select * from episodes where stream = 1 order by episode")
    keys = ("length", "return", "first_policy_version", "last_policy_version", "terminated", "truncated", "complete")
    assert [tuple(row[key] for key in keys) for row in got] == [
        (3, 6.0, 0, 0, True, False, True),
        (2, 3.0, 1, 1, False, True, True),
        (4, 10.0, 1, 2, False, False, False),
    ]
    assert {row["writer"] for row in got} == {"actor-0.0"}


def test_an_episode_whose_beginning_has_expired_is_not_complete(run: Path, ask):
    (run / "replay" / "log" / "actor-0.0-000000.arrow").unlink()
    got = ask("select episode, complete from episodes where stream = 0 order by episode")
    assert got == [{"episode": 1, "complete": False}, {"episode": 2, "complete": False}]


def test_draws_and_versions_meet(ask):
    sql = """
    select version, env_steps, count(*) as windows, any_value("train/value_loss") as loss
    from draws join versions using (version) group by all order by version
    """
    assert ask(sql) == [
        {"version": 1, "env_steps": 10, "windows": 2, "loss": 0.5},
        {"version": 2, "env_steps": 20, "windows": 1, "loss": None},
    ]
    assert ask('select env_steps, "eval/mean_reward" as score from versions where version is null') == [
        {"env_steps": 20, "score": 7.0}
    ]
    assert ask("select min(time) > 1e9 as later from versions") == [{"later": True}]


def spoil(run: Path, column: str) -> Path:
    """Archive a segment so that one column cannot be decompressed."""
    live, log = run / "replay" / "segments", run / "replay" / "log"
    ends = Extents.read(live / "actor-0.0.ends")[2]
    path = archive(live / "actor-0.0-000001.arrow", log, ends=ends, codec="zstd")
    parts = path.read_bytes().split(b"\x28\xb5\x2f\xfd")  # what every compressed column begins with
    place = read_archived(path).schema.names.index(column) + 1
    path.write_bytes(b"\x28\xb5\x2f\xfd".join(parts[:place]) + bytes(4) + b"\x28\xb5\x2f\xfd".join(parts[place:]))
    return path


def test_frames_are_not_touched_where_nobody_asks_for_them(run: Path, ask, contrail: Contrail):
    path = spoil(run, "observation")
    assert len(ask("select avg(reward) as mean from rows")) == 1
    assert len(ask("select max(length) as longest from episodes")) == 1
    assert len(ask("select count(*) as n from rows")) == 1
    assert len(ask("select distinct writer from rows")) == 1
    outcome = contrail("query", run, "select sum(observation[1]) from rows")
    assert f'{path} is damaged (column "observation"' in outcome.sentence


def test_formats(run: Path, contrail: Contrail):
    sql = "select episode, sum(reward) as total, [1, 2] as pair, null as nothing from rows group by 1 order by 1"
    rows = list(csv.reader(io.StringIO(contrail("query", run, sql, "--format", "csv").out)))
    assert rows == [
        ["episode", "total", "pair", "nothing"],
        *([str(episode), total, "[1, 2]", ""] for episode, total in enumerate(("12.0", "6.0", "20.0"))),
    ]
    table = contrail("query", run, sql).out
    assert "episode" in table and "20.0" in table
    assert json.loads(contrail("query", run, "select 1 where false", "--format", "json").out) == []
    assert json.loads(contrail("query", run, "select sum(episode) as n from rows", "--format", "json").out)[0]["n"] > 0


def test_a_limit_is_the_most_that_is_printed(run: Path, contrail: Contrail, ask):
    assert len(ask("from range(100)", "--limit", 3)) == 3
    assert len(ask("from range(100)")) == 100
    assert len(contrail("query", run, "from range(100)", "--format", "csv", "--limit", 5).out.splitlines()) == 6
    whole = contrail("query", run, "select range + 1000 as n from range(300)", "--limit", 200).out
    assert all(str(1000 + number) in whole for number in range(200)) and "1200" not in whole


def test_an_imported_store_can_be_asked(run: Path, tmp_path: Path, contrail: Contrail):
    (tmp_path / "data").mkdir()
    (run / "replay" / "log").rename(tmp_path / "data" / "log")
    outcome = contrail("query", tmp_path / "data", "select count(*) as n from rows", "--format", "csv")
    assert (outcome.code, outcome.out.split()) == (0, ["n", str(2 * ROWS)])


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("selct 1", 'Parser Error: syntax error at or near "selct"'),
        ("select * from row", "Table with name row does not exist! Did you mean"),
        ("select rewrad from rows", 'Referenced column "rewrad" not found in FROM clause! Candidate bindings:'),
        ("select cast('a' as int) from rows", "Conversion Error"),
        ("select * from contrail", "Table with name contrail does not exist"),
    ],
)
def test_sql_that_makes_no_sense(sql: str, sentence: str, run: Path, contrail: Contrail):
    outcome = contrail("query", run, sql)
    assert outcome.code == 2 and not outcome.out
    assert sentence in outcome.sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no/where", "select 1"], "there is no run no/where"),
        (["/", "select 1"], "/ holds no store: wanted the folder of a run"),
        (["no/where", "select 1", "--limit", "0"], "--limit is 0, wanted at least 1"),
    ],
)
def test_a_question_to_nobody(arguments: list[str], sentence: str, contrail: Contrail):
    outcome = contrail("query", *arguments)
    assert outcome.code == 2 and sentence in outcome.sentence


@pytest.mark.parametrize("view", ["rows", "episodes"])
def test_a_run_without_rows_says_so_and_answers_the_rest(view: str, tmp_path: Path, contrail: Contrail):
    (tmp_path / "run" / "replay").mkdir(parents=True)
    (tmp_path / "run" / "experiment.json").write_text("{}")
    outcome = contrail("query", tmp_path / "run", f"select * from {view}")
    assert outcome.code == 2
    assert outcome.sentence == f"contrail: {tmp_path}/run/replay holds no rows yet"
    assert contrail("query", tmp_path / "run", "select count(*) from draws").code == 0


def test_a_damaged_file_is_named(run: Path, contrail: Contrail):
    (path,) = (run / "replay" / "log").glob("*.arrow")
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    outcome = contrail("query", run, "select avg(reward) from rows")
    assert outcome.code == 2 and f"{path} is damaged" in outcome.sentence


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_damaged_rows_are_named(run: Path, contrail: Contrail, form: str):
    path = spoil(run, "reward")
    for sql in ("select sum(reward) from rows", "select reward from rows"):
        outcome = contrail("query", run, sql, "--format", form)
        assert outcome.code == 2 and f'{path} is damaged (column "reward"' in outcome.sentence


def test_damaged_metrics_are_named(run: Path, contrail: Contrail):
    (run / "metrics.jsonl").write_text("{\n")
    assert "metrics.jsonl, line 1: not JSON" in contrail("query", run, "select 1").sentence


def test_how_to_get_duckdb_is_said(run: Path, contrail: Contrail, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    outcome = contrail("query", run, "select 1")
    assert outcome.code == 2
    assert "contrail query asks DuckDB, which cannot be imported" in outcome.sentence
    assert outcome.sentence.endswith('pip install "contrail[query]"')


def test_help_names_the_views(contrail: Contrail):
    outcome = contrail("query", "--help")
    assert outcome.code == 0
    assert all(view in outcome.out for view in ("rows", "episodes", "draws", "versions", "--limit"))
    assert "contrail query RUN" in contrail("--help").out


def test_other_commands_do_not_wait_for_what_only_a_query_wants():
    imports = "import sys, cluster.commands, cluster.mistakes"
    program = f"{imports}; print('duckdb' in sys.modules, 'pyarrow.dataset' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_reader_that_has_enough_is_no_failure(run: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "query", run, "from range(300000)", "--format", "csv", "--limit", 300000)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "range\n"
    process.stdout.close()
    assert process.wait(60) == 128 + signal.SIGPIPE
    assert process.stderr.read() == ""
    process.stderr.close()
