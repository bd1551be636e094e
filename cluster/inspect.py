"""What a run's store holds: tables, sizes, rates, and how old and how urgent its windows are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from cluster.events import added
from cluster.experiment import Experiment
from cluster.histograms import Histograms, merged
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder, RunFolderError
from replay import journal
from replay.recovery import recover
from replay.shard import Shard

BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Inspection:
    """What a run's store holds at one moment.

    Attributes:
        step: env steps of the run so far.
        tables: by table and name, numbers summed over shards (`Shard.statistics`).
        store: numbers of the whole store.
        histograms: of priorities and ages, by "table/priority" and "table/age": counts and edges.
    """

    step: int
    tables: dict[str, dict[str, float]]
    store: dict[str, float]
    histograms: Histograms

    def shown(self) -> RenderableType:
        """For the terminal."""
        return Group(_table_grid(self.tables), _store_grid(self.store), *_bars(self.histograms))

    def write(self, folder: RunFolder) -> None:
        """Leave the same in the run's TensorBoard pages, under `inspect/`, unless the run is being trained."""
        numbers = {f"{table}/{name}": value for table, values in self.tables.items() for name, value in values.items()}
        with added(folder.path) as events:
            if events is None:
                return
            events.histograms(self.step, {f"inspect/{name}": histogram for name, histogram in self.histograms.items()})
            events.scalars(self.step, {f"inspect/{name}": value for name, value in {**numbers, **self.store}.items()})
            events.text("inspect", _markdown(self), step=self.step)


def inspect(folder: RunFolder, experiment: Experiment) -> Inspection:
    """Look at a run's store, whether the run goes on or not; nothing is changed.

    Raises:
        RunFolderError: the run has no store yet.
        JournalError: a journal is damaged.
    """
    starts = sorted((folder.path / "replay" / "journal").glob("[0-9]*"))
    shards = _shards(starts[-1]) if starts else []
    if not shards:
        raise RunFolderError(f"{folder.path} has no store yet: its shards write a journal as soon as they start")
    rows = _last_values(folder)
    statistics = _summed(shard.statistics() for shard in shards)
    tables = {name: _of_table(name, statistics) for name in experiment.tables}
    for name, values in tables.items():
        values["capacity"] = float(experiment.tables[name].capacity_windows)
    store = {name: value for name, value in statistics.items() if "/" not in name}
    store |= _sizes(folder.path / "replay", statistics["rows_committed"])
    store |= {"agent steps per second": rows.get("time/fps", 0.0)}
    histograms = merged([shard.histograms() for shard in shards])
    return Inspection(int(rows.get("step", 0)), tables, store, histograms)


def _shards(start: Path) -> list[Shard]:
    found = [recover(start, name) for name in journal.names(start)]
    return [shard for shard in found if shard is not None]


def _last_values(folder: RunFolder) -> Mapping[str, float]:
    try:
        rows = read_metrics(folder.path)
    except FileNotFoundError:
        return {}
    newest = sorted(rows[-10:], key=lambda row: row["step"])  # an evaluation is of weights from some steps ago
    return {name: float(value) for row in newest for name, value in row.items()}


def _summed(parts: Iterator[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def _of_table(name: str, statistics: Mapping[str, float]) -> dict[str, float]:
    return {key.partition("/")[2]: value for key, value in statistics.items() if key.startswith(f"{name}/")}


def _sizes(replay: Path, rows: float) -> dict[str, float]:
    """Files and bytes that are kept, and what a row takes live and kept."""
    live = [path.stat().st_size for path in (replay / "segments").glob("*.arrow")]
    kept = [path.stat().st_size for path in (replay / "log").glob("*.arrow")]
    logs = [path for folder in ("log", "journal") for path in (replay / folder).rglob("*") if path.is_file()]
    numbers = {"live files": len(live), "live bytes": sum(live), "kept files": len(kept), "kept bytes": sum(kept)}
    numbers["bytes in all that is kept"] = sum(path.stat().st_size for path in logs)
    sizes = {name: float(number) for name, number in numbers.items()}
    return sizes | ({"kept bytes per row": sum(kept) / rows} if kept and rows else {})


def _table_grid(tables: Mapping[str, Mapping[str, float]]) -> Grid:
    grid = Grid(title="tables", title_justify="left")
    names = list(dict.fromkeys(name for values in tables.values() for name in values))
    grid.add_column("")
    for table in tables:
        grid.add_column(table, justify="right")
    for name in sorted(names, key=lambda name: (name != "windows", name != "capacity", name)):
        grid.add_row(name.replace("_", " "), *[f"{values.get(name, 0):,.0f}" for values in tables.values()])
    return grid


def _store_grid(store: Mapping[str, float]) -> Grid:
    grid = Grid(title="store", title_justify="left", show_header=False)
    grid.add_column("")
    grid.add_column("", justify="right")
    for name, value in store.items():
        grid.add_row(name.replace("_", " "), f"{value:,.0f}")
    return grid


def _bars(histograms: Histograms) -> list[Text]:
    """A line for each histogram: from, bars, to."""
    lines = []
    for name, (counts, edges) in histograms.items():
        heights = np.ceil(counts / max(1, counts.max()) * (len(BARS) - 1)).astype(int)
        bars = "".join(BARS[height] for height in heights)
        lines.append(Text(f"{name:<24} {edges[0]:>10.4g} |{bars}| {edges[-1]:.4g}"))
    return lines


def _markdown(found: Inspection) -> str:
    rows = [f"| {table} | {name} | {value:,.0f} |" for table, vs in found.tables.items() for name, value in vs.items()]
    rows += [f"| | {name} | {value:,.0f} |" for name, value in found.store.items()]
    return "\n".join(["| table | what | |", "|---|---|---|", *rows])
