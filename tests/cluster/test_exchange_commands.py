"""What a person does to bring rows in and out: a file, a store, a file again."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from actors.environments import EnvironmentProblem
from cluster.exchange_commands import command_export, command_import
from replay.exchange import ExchangeError, export_rows
from replay.schema import Column, Schema
from tests.replay.test_exchange import assert_same, batch_of, rows_of, stored

SCHEMA = Schema.of_rows({"observation": Column("float32", (4,))}, Column("int64"))
needs_minari = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("minari", "h5py", "PIL"))), reason="Minari is not installed"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two streams of CartPole's rows in a Parquet file."""
    batches = [batch_of(rows_of(number, [5, 4], SCHEMA), "w", number, schema=SCHEMA) for number in range(2)]
    export_rows(batches, tmp_path / "rows.parquet", "parquet")
    return tmp_path / "rows.parquet"


def test_a_file_a_store_a_file_and_a_store_again(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, lines = tmp_path / "first", tmp_path / "second", tmp_path / "rows.jsonl"
    assert command_import([str(source), str(first)]) == 0
    assert f"{first}: 22 rows, 18 of them decisions, in 2 streams and 2 files" in capsys.readouterr().out
    assert command_export([str(first), str(lines)]) == 0
    assert f"{lines}: 22 rows, {lines.stat().st_size:,} bytes" in capsys.readouterr().out
    assert command_import([str(lines), str(second), "--codec", "zstd"]) == 0
    assert "observation          float32 (4,)" in capsys.readouterr().out
    for stream, rows in stored(first).items():
        assert_same(stored(second)[stream], rows)
        assert_same(rows, rows_of(stream, [5, 4], SCHEMA))


def test_flags_reach_the_import(source: Path, tmp_path: Path) -> None:
    table = pq.read_table(source).drop_columns(["discounted_return"])
    table = table.append_column("note", [["x"] * len(table)]).replace_schema_metadata({})
    table = table.cast(table.schema.set(3, table.schema.field(3).remove_metadata()))
    pq.write_table(table, tmp_path / "other.pq")
    columns = {"columns": {"observation": {"dtype": "float32", "shape": [2, 2]}}}
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    flags = ["--format", "parquet", "--columns", f"{tmp_path}/columns.json", "--ignore", "note", "--gamma", "0"]
    assert command_import([f"{tmp_path}/other.pq", f"{tmp_path}/store", *flags]) == 0
    found = stored(tmp_path / "store")[0]
    assert found["observation"].shape == (11, 2, 2)
    np.testing.assert_array_equal(found["discounted_return"], found["reward"])


@pytest.fixture
def run(source: Path, tmp_path: Path) -> Path:
    """A run of CartPole that kept these rows."""
    command_import([str(source), f"{tmp_path}/run/replay"])
    (tmp_path / "run/experiment.json").write_text(
        json.dumps({"recipe": "ppo", "arguments": ["--env", "CartPole-v1", "--topology.local"]})
    )
    return tmp_path / "run"


def test_a_run_can_be_exported_by_its_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.exchange_commands.RUNS", run.parent)
    assert command_export(["run", f"{run}/rows.parquet"]) == 0
    assert pq.read_metadata(run / "rows.parquet").num_rows == 22


@needs_minari
@pytest.mark.parametrize("what", ["run", "store"])
def test_minari(what: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    folder, flags = (run, []) if what == "run" else (run / "replay", ["--env", "CartPole-v1"])
    assert command_export([str(folder), "cartpole/mine-v0", "--format", "minari", *flags]) == 0
    assert '4 episodes: minari.load_dataset("cartpole/mine-v0")' in capsys.readouterr().out
    assert command_import(["cartpole/mine-v0", f"{tmp_path}/store", "--format", "minari"]) == 0
    assert "22 rows, 18 of them decisions, in 1 streams" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "rows.txt", "{}/new"], "rows.txt does not say how it is written: give --format"),
        (["import", "none.parquet", "{}/new"], "there is no file none.parquet"),
        (["import", "{}/rows.parquet", "{}"], "exists already"),
        (["import", "{}/rows.parquet", "{}/new", "--gamma", "2"], "--gamma is 2.0, wanted 0 to 1"),
        (["import", "x-v0", "{}/new", "--format", "minari", "--ignore", "a"], "--ignore is for files"),
        (["import", "{}/rows.parquet", "{}/new", "--columns", "{}/none.json"], "none.json cannot be read"),
        (["export", "{}/nowhere", "rows.parquet"], "there is no run or store"),
        (["export", "{}/run", "{}/rows"], "rows has no suffix that says how to write it: give --format"),
        (["export", "{}/run", "{}/rows.parquet"], "rows.parquet exists already"),
        (["export", "{}/run/replay", "mine-v0", "--format", "minari"], "which environment its rows are of: give --env"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: list[str], words: str, run: Path, tmp_path: Path) -> None:
    command, *rest = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    with pytest.raises(ExchangeError) as failure:
        {"import": command_import, "export": command_export}[command](rest)
    assert words in str(failure.value)
    assert not (tmp_path / "new").exists()


@needs_minari
def test_an_environment_that_does_not_exist(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with pytest.raises(EnvironmentProblem, match="did you mean"):
        command_export([str(run), "mine-v0", "--format", "minari", "--env", "CartPole-v9"])


@pytest.mark.parametrize("command", [command_import, command_export])
def test_help(command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command(["--help"])
    assert end.value.code == 0
    assert "--format" in capsys.readouterr().out
