"""What the commands do that look at a run's store: inspect, replay."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from cluster.experiment import ExperimentError, Spaces, at_least
from cluster.inspect import inspect
from cluster.limits import LimitsFile
from cluster.metrics import read_metrics
from cluster.parsing import recorded
from cluster.recompute import Again, recompute
from cluster.run_folder import RunFolder
from replay.table import LIMITS


@dataclass(frozen=True)
class Inspecting:
    """Show what a run's store holds: tables, sizes, rates, how old and how urgent its windows are.

    The same goes to the run's TensorBoard pages, under inspect/.

    Attributes:
        run: folder of the run.
    """

    run: tyro.conf.Positional[Path]


@dataclass(frozen=True)
class Replaying:
    """Make a learner step again from the rows that it drew, on the CPU, and compare the weights bit for bit.

    It begins at the newest checkpoint that the step follows; where there is none, at the beginning of the run.

    Attributes:
        run: folder of the run.
        step: learner step, from 0: step N made version N + 1.
    """

    run: tyro.conf.Positional[Path]
    step: int


@dataclass(frozen=True)
class Limiting:
    """Change how far drawing and writing may be apart in a table of a run, while it goes on or before it is resumed.

    Attributes:
        run: folder of the run.
        table: its name.
        min_items: windows that must be held before a draw.
        samples_per_insert: windows drawn for each one that comes in.
        tolerance: windows that the drawn ones may be off that ratio.
        reset: go back to the recipe's limits first.
    """

    run: tyro.conf.Positional[Path]
    table: tyro.conf.Positional[str]
    min_items: int | None = None
    samples_per_insert: float | None = None
    tolerance: float | None = None
    reset: bool = False


def command_limit(arguments: list[str]) -> int:
    """contrail limit RUN TABLE [flags]."""
    options = tyro.cli(Limiting, args=arguments, prog="contrail limit")
    folder = RunFolder.open(options.run)
    _, experiment, _ = recorded(folder)
    limits = {name: value for name in LIMITS if (value := getattr(options, name)) is not None}
    if options.reset and (table := experiment.tables.get(options.table)):
        limits = {name: getattr(table, name) for name in LIMITS} | limits
    LimitsFile(folder).ask(experiment, options.table, limits, held=_held(folder, options.table))
    changes = ", ".join(f"{name} {value}" for name, value in limits.items())
    print(f"table {options.table}: {changes}, from the next learner step of {folder.path} on")
    return 0


def _held(folder: RunFolder, table: str) -> int:
    """Windows that a table holds, by the run's newest metrics; 0 where there are none."""
    tag, metrics = f"replay/{table}/windows", folder.path / "metrics.jsonl"
    rows = read_metrics(folder.path) if metrics.exists() else []
    return int(next((row[tag] for row in reversed(rows) if tag in row), 0))


def command_inspect(arguments: list[str]) -> int:
    """contrail inspect RUN."""
    folder = RunFolder.open(tyro.cli(Inspecting, args=arguments, prog="contrail inspect").run)
    _, experiment, _ = recorded(folder)
    found = inspect(folder, experiment)
    Console().print(found.shown())
    found.write(folder)
    return 0


def command_replay(arguments: list[str]) -> int:
    """contrail replay RUN --step N; exit code 1 where the weights differ."""
    options = tyro.cli(Replaying, args=arguments, prog="contrail replay")
    at_least("--step", options.step, 0)
    folder = RunFolder.open(options.run)
    _, experiment, _ = recorded(folder)
    if experiment.topology.gpus_per_learner:
        raise ExperimentError(f"{folder.path} learned on GPUs: only what a CPU computed can be made again bit for bit")
    made: list[Again] = []
    recompute(experiment, Spaces.of(experiment.environment), folder, options.step, told=made.append)
    last = made[-1]
    print(f"made {len(made)} steps again, {made[0].step} to {last.step}")
    for again in made:
        if again.recorded is not None and again.crc != again.recorded:
            print(f"after step {again.step} the weights differ: checksum {again.crc}, the run had {again.recorded}")
            return 1
    print(f"after step {last.step} the weights are those of the run, bit for bit: checksum {last.crc}")
    return 0
