"""Questions to a run in SQL: its rows, episodes, draws and versions as DuckDB sees them."""

import csv
import json
import math
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import tyro

from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder, RunFolderError
from learners.extras import needed
from replay.archive_file import CorruptSegment
from replay.extents import ExtentsError
from replay.schema import SchemaError
from replay.store import Store, StoreError

ROWS = "create view rows as select * from stored where abs(row) >= 0"
"""The condition always holds, and DuckDB does not know it: asked for no column, as by count(*), Arrow reads all."""

EPISODES = """
create view episodes as select
  writer, stream, episode,
  sum(mask)::bigint as length,
  sum(reward)::double as return,
  min(policy_version) filter (where mask = 1) as first_policy_version,
  max(policy_version) filter (where mask = 1) as last_policy_version,
  max(terminated) = 1 as terminated,
  max(truncated) = 1 as truncated,
  max(greatest(terminated, truncated)) = 1 and count(*) = max(step) + 1 as complete
from rows group by writer, stream, episode order by min(row), writer, stream
"""
EPISODE_COLUMNS = {"episode", "mask", "policy_version", "reward", "step", "terminated", "truncated"}
MOST_LINES = 40
"""Of a table on the screen, unless a limit says otherwise; beyond it the middle is left out."""


class QueryError(RunFolderError):
    """A question that cannot be answered: says why, and what to do."""


@dataclass(frozen=True)
class Query:
    """Ask a run in SQL, while it goes on or long after.

    There are `rows` (all complete rows: writer, stream, row, and the columns of the store), `episodes` (length in
    decisions, return, policy versions, whether it ended, and whether it is there from its first row to its end),
    `draws` (what learners read, a row for each window) and `versions` (every metric by version of the weights).
    "describe rows" lists the columns of one.

    Attributes:
        run: folder of the run, or of an imported store.
        sql: the question, e.g. "select avg(reward) from rows".
        format: how the answer is printed: a table, CSV, or a JSON list of one object per row.
        limit: rows of the answer that are printed, at most; by default all, of a long table the beginning and the end.
    """

    run: tyro.conf.Positional[Path]
    sql: tyro.conf.Positional[str]
    format: Literal["table", "csv", "json"] = "table"
    limit: int | None = None


def command_query(arguments: list[str]) -> int:
    """contrail query RUN SQL [flags]."""
    query = tyro.cli(Query, args=arguments, prog="contrail query")
    if query.limit is not None and query.limit < 1:
        raise QueryError(f"--limit is {query.limit}, wanted at least 1")
    answer(query)
    return 0


def answer(query: Query) -> None:
    """Print the answer to a question.

    Raises:
        QueryError: there is no run, it has no rows, the SQL is wrong, or a file is damaged.
        MissingExtra: DuckDB is not installed.
    """
    duckdb = needed("duckdb", "contrail query asks DuckDB", "query")
    store, folder = _store(query.run)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # live segments are held by open files, one each
    with duckdb.connect() as connection:
        connection.execute("set python_enable_replacements = false")  # a misspelt name must not find our variables
        missing = _show_views(connection, store, folder)
        try:
            found = connection.sql(query.sql)
            if found is not None:
                _PRINTERS[query.format](found if query.limit is None else found.limit(query.limit), query.limit)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system's, as where nobody reads on
                raise
            raise QueryError(_explained(error, store, missing)) from error


def _store(path: Path) -> tuple[Store, Path]:
    """The store and folder of a run, by path or by name, or an imported store."""
    try:
        folder = RunFolder.open(path).path
    except RunFolderError:
        if not path.is_dir():
            raise
        folder = path
    try:
        return Store.open(folder), folder
    except StoreError as error:
        raise QueryError(str(error)) from error


def _show_views(connection: Any, store: Store, folder: Path) -> str:
    """Make rows, episodes, draws and versions known to DuckDB; why some are not, as a sentence."""
    missing = ""
    try:
        rows = store.dataset(plain=True)
        connection.register("stored", rows)
        connection.execute(ROWS)
        if set(rows.schema.names) >= EPISODE_COLUMNS:
            connection.execute(EPISODES)
    except StoreError as error:
        missing = str(error)
    except (CorruptSegment, ExtentsError, SchemaError) as error:
        raise QueryError(str(error)) from error
    connection.register("draws", store.draws())
    if (folder / "metrics.jsonl").is_file():
        connection.register("versions", versions(folder))
    return missing


def versions(folder: Path) -> pa.Table:
    """A run's metrics as columns: version, env_steps, time and every tag.

    `version` is of the weights that a learner step made, null in other lines; `time` is in seconds since 1970.

    Raises:
        QueryError: a line of the file is damaged.
    """
    try:
        lines = read_metrics(folder)
    except ValueError as error:
        raise QueryError(str(error)) from error
    tags = sorted({tag for line in lines for tag in line} - {"step", "time"})
    numbers = [line.get("train/version") for line in lines]
    columns = {
        "version": pa.array([None if number is None else int(number) for number in numbers], pa.int64()),
        "env_steps": pa.array([line["step"] for line in lines], pa.int64()),
        "time": pa.array([line["time"] for line in lines], pa.float64()),
    }
    return pa.table(columns | {tag: pa.array([line.get(tag) for line in lines], pa.float64()) for tag in tags})


def _explained(error: Exception, store: Store, missing: str) -> str:
    """DuckDB's complaint as one sentence; what is behind it, where that is no mistake in the SQL."""
    text = " ".join(str(error).split("\n\nLINE ")[0].split())
    if missing and re.search(r"\b(rows|episodes) does not exist", text):
        return missing
    if re.search("arrow|IOError|stream registered", text) or not type(error).__module__.endswith("duckdb"):
        try:
            store.verify()
        except (CorruptSegment, StoreError, SchemaError) as damage:
            return str(damage)
    return f"the question cannot be answered: {text}"


def _print_table(found: Any, limit: int | None) -> None:
    found.show(max_rows=MOST_LINES if limit is None else limit)


def _print_csv(found: Any, limit: int | None) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(found.columns)
    writer.writerows(row.values() for row in _answers(found))


def _print_json(found: Any, limit: int | None) -> None:
    separator = "["
    for row in _answers(found):
        print(separator, json.dumps(row, default=str, allow_nan=False), sep="\n", end="")
        separator = ","
    print("\n]" if separator == "," else "[]")


_PRINTERS = {"table": _print_table, "csv": _print_csv, "json": _print_json}


def _answers(found: Any) -> Iterator[dict[str, Any]]:
    """The rows of an answer as JSON knows values, a few at a time."""
    for batch in pa.RecordBatchReader.from_stream(found):
        for row in batch.to_pylist():
            yield {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    """Sums of integers are decimals to DuckDB; JSON has no number that is none."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_value(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
