"""What `contrail import` and `contrail export` do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import tyro

from actors.environments import Environment
from cluster.minari_export import export_minari
from cluster.minari_import import import_minari
from cluster.model_commands import export_run_policy, is_policy
from cluster.parsing import recorded
from cluster.run_folder import RUNS, RunFolder
from replay.exchange import (
    Codec,
    ExchangeError,
    Imported,
    export_rows,
    format_of,
    import_file,
    read_columns,
)
from replay.store import Store

Format = Literal["parquet", "jsonl", "minari"]
ExportFormat = Literal["parquet", "jsonl", "minari", "safetensors", "pt2", "onnx"]


@dataclass(frozen=True)
class Import:
    """Make a store of rows from elsewhere, to learn from without actors.

    Attributes:
        source: a .parquet or .jsonl file, a folder of such files, or a Minari dataset by id or folder.
        store: folder of the new store.
        format: how the source is written; by default its suffix says.
        columns: a JSON file that says what columns are, in place of what the source says or what they look like.
        ignore: columns to leave out.
        gamma: discount of the column discounted_return, where it has to be computed.
        codec: how the store is compressed; one that is not can be mapped into memory.
        download: let Minari fetch a dataset that it does not have yet.
    """

    source: tyro.conf.Positional[str]
    store: tyro.conf.Positional[Path]
    format: Format | None = None
    columns: Path | None = None
    ignore: tuple[str, ...] = ()
    gamma: float = 0.99
    codec: Codec = "none"
    download: bool = False


@dataclass(frozen=True)
class Export:
    """Write a run's policy, or all its rows, for others to use: the format says which.

    The policy: safetensors, pt2, onnx. Rows, of a run or of a store: parquet, jsonl, minari.

    Attributes:
        run: folder of the run or of the store, or a run's name.
        target: a new file, or the id of a new Minari dataset; a policy's is by default in the run's folder.
        format: how it is written; by default the suffix says.
        env: environment of the rows, for Minari; by default the run's own.
        checkpoint: env steps of the checkpoint whose policy is written, or "best"; by default the newest.
    """

    run: tyro.conf.Positional[Path]
    target: tyro.conf.Positional[str | None] = None
    format: ExportFormat | None = None
    env: str | None = None
    checkpoint: str | None = None


def command_import(arguments: list[str]) -> int:
    """contrail import SOURCE STORE [flags]."""
    options = tyro.cli(Import, args=arguments, prog="contrail import")
    if not 0 <= options.gamma <= 1:
        raise ExchangeError(f"--gamma is {options.gamma}, wanted 0 to 1")
    imported = _import(options)
    print(
        f"{options.store}: {imported.rows:,} rows, {imported.decisions:,} of them decisions, in {imported.streams:,} "
        f"streams and {imported.files:,} files"
    )
    for name, column in imported.schema.columns.items():
        print(f"  {name:<20} {column}")
    return 0


def command_export(arguments: list[str]) -> int:
    """contrail export RUN [TARGET] [flags]."""
    options = tyro.cli(Export, args=arguments, prog="contrail export")
    if is_policy(options.target, options.format):
        if options.env:
            raise ExchangeError("--env is for Minari: a policy's environment is the run's, leave it out")
        return export_run_policy(options.run, options.target, options.format, options.checkpoint)
    if options.checkpoint:
        raise ExchangeError("--checkpoint is for policies (safetensors, pt2, onnx): rows are of the whole run")
    return _export_rows(options)


def _export_rows(options: Export) -> int:
    run = _folder(options.run)
    if options.target is None:
        hint = "give a TARGET for rows" if options.format else "give a TARGET, or --format pt2 for the policy"
        raise ExchangeError(f"nothing says what to write where: {hint}")
    written = options.format or format_of(Path(options.target))
    if written is None:
        raise ExchangeError(f"{options.target} has no suffix that says how to write it: give --format")
    if written == "minari":
        environment = Environment(options.env) if options.env else _environment_of(run)
        episodes = export_minari(stored_rows(run), options.target, environment)
        print(f'{episodes:,} episodes: minari.load_dataset("{options.target}")')
        return 0
    rows = export_rows(stored_rows(run), options.target, "jsonl" if written == "jsonl" else "parquet")
    print(f"{options.target}: {rows:,} rows, {Path(options.target).stat().st_size:,} bytes")
    return 0


def stored_rows(path: Path) -> Iterator[pa.RecordBatch]:
    """All complete rows of a run or of a store, a segment at a time."""
    # Every batch that is read ahead is a segment in memory.
    yield from Store.open(path).dataset().to_batches(batch_readahead=1, fragment_readahead=1)


def _folder(run: Path) -> Path:
    """The folder of a run or a store, by path or by a run's name."""
    for folder in (run, RUNS / run):
        if folder.is_dir():
            return folder
    raise ExchangeError(f"there is no run or store {run}")


def _import(options: Import) -> Imported:
    written = options.format or format_of(Path(options.source))
    if written is None:
        raise ExchangeError(f"{options.source} does not say how it is written: give --format")
    if written == "minari":
        for flag, given in (("--columns", options.columns), ("--ignore", options.ignore)):
            if given:
                raise ExchangeError(f"{flag} is for files: Minari says itself what its columns are, leave it out")
        return import_minari(
            options.source, options.store, download=options.download, gamma=options.gamma, codec=options.codec
        )
    return import_file(
        options.source,
        options.store,
        written,
        declared=read_columns(options.columns) if options.columns else {},
        ignore=options.ignore,
        gamma=options.gamma,
        codec=options.codec,
    )


def _environment_of(path: Path) -> Environment:
    """The environment that a run is of."""
    if not (path / "experiment.json").is_file():
        raise ExchangeError(f"{path} does not say which environment its rows are of: give --env")
    return recorded(RunFolder.open(path))[1].environment
