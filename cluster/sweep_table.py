"""What a sweep has found so far: a row for each run, and means over the seeds of each setting."""

import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group

from cluster.display import clock
from cluster.following import NewRows
from cluster.result_table import ResultTable
from cluster.sweep_folder import Planned, Setting, SweepFolder, state
from cluster.sweep_lineage import Lineage
from cluster.whole_file import replace_text

RESULTS, PAGE = "results.jsonl", "results.md"
TAGS = {"rollout/ep_rew_mean": "value", "eval/mean_reward": "evaluation"}
SEED = "seed"


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        run: its name.
        settings: what differs between runs.
        steps: env steps so far.
        value: mean return of its last 100 training episodes; None: no episode ended yet.
        evaluation: mean return of the greedy episodes after training; None: they were not played yet.
        seconds: that it has been going on, over all starts.
        state: in a few words.
    """

    run: str
    settings: Mapping[str, Setting]
    steps: int
    value: float | None
    evaluation: float | None
    seconds: float
    state: str

    @property
    def cells(self) -> list[str]:
        """What is shown of it."""
        figures = [_digits(self.value), _digits(self.evaluation), clock(self.seconds), self.state]
        return [*map(str, self.settings.values()), f"{self.steps:,}", *figures]


class Looks:
    """Looks at the runs of a sweep, time after time, and reads what is new.

    Args:
        sweep: the sweep.
    """

    def __init__(self, sweep: SweepFolder) -> None:
        self._sweep = sweep
        self._follow = {run.name: NewRows(sweep.path / run.name) for run in sweep.runs}
        self._steps = dict.fromkeys(self._follow, 0)
        self._values: dict[str, dict[str, float]] = {name: {} for name in self._follow}
        self._seconds = dict.fromkeys(self._follow, 0.0) | _seconds(sweep.path)

    def rows(self, broken: Mapping[str, str], went_on: Mapping[str, float]) -> list[Row]:
        """All runs as they are.

        Args:
            broken: runs that cannot tell themselves what went wrong, and what did.
            went_on: seconds that runs have been going on since this start of the sweep.
        """
        return [self._row(run, broken.get(run.name, ""), went_on.get(run.name, 0.0)) for run in self._sweep.runs]

    def _row(self, run: Planned, broken: str, went_on: float) -> Row:
        name, values = run.name, self._values[run.name]
        for row in self._follow[name].read():
            if "eval/mean_reward" not in row:  # which may be of weights from some steps ago
                self._steps[name] = int(row["step"])
            values |= {word: row[tag] for tag, word in TAGS.items() if tag in row}
        said = state(self._sweep, name)
        return Row(
            name,
            run.settings,
            self._steps[name],
            values.get("value"),
            values.get("evaluation"),
            round(self._seconds[name] + went_on, 1),
            f"failed: {broken}" if broken and said in ("waiting", "stopped", "died") else said,
        )


def _seconds(folder: Path) -> dict[str, float]:
    """How long runs have been going on in earlier starts, as the last of them wrote it."""
    try:
        rows = [json.loads(line) for line in (folder / RESULTS).read_text().splitlines()]
    except (FileNotFoundError, ValueError):
        return {}
    return {row["run"]: row["seconds"] for row in rows}


def shown(rows: Sequence[Row], sweep: SweepFolder) -> Group:
    """All tables for a terminal."""
    return Group(*(table.rich() for table in _tables(rows, sweep)))


def write(sweep: SweepFolder, rows: Sequence[Row], title: str) -> None:
    """Replace `results.jsonl` and `results.md`."""
    lines = [
        json.dumps({("return" if name == "value" else name): v for name, v in asdict(row).items()}) for row in rows
    ]
    replace_text(sweep.path / RESULTS, "".join(f"{line}\n" for line in lines))
    pages = [f"# {title}", *(table.markdown() for table in _tables(rows, sweep))]
    replace_text(sweep.path / PAGE, "\n\n".join(pages) + "\n")


def _tables(rows: Sequence[Row], sweep: SweepFolder) -> list[ResultTable]:
    settings, lineage = list(rows[0].settings), Lineage.read(sweep.path)
    heads = [*settings, "env steps", "return", "evaluation", "time", "state"]
    runs = ResultTable("Runs", heads, [row.cells for row in rows], {*range(len(settings)), len(heads) - 1})
    return [runs, *(_over_seeds(rows, settings) if lineage is None else _taken_over(lineage))]


def _taken_over(lineage: Lineage) -> list[ResultTable]:
    """Which runs of a population went on from which, settings before and after; instead of means over seeds."""
    heads = ["run", "from", "settings", "from env steps", "return", "of the other"]
    cells = [
        [take.run, take.source, take.changes, f"{take.steps:,}", _digits(take.value), _digits(take.source_value)]
        for take in lineage.taken
    ]
    return [ResultTable("Taken over", heads, cells, set(range(3)))] if cells else []


def _over_seeds(rows: Sequence[Row], settings: Sequence[str]) -> list[ResultTable]:
    """Mean and standard deviation of each setting's finished runs; nothing where seeds do not differ."""
    if SEED not in settings:
        return []
    others = [name for name in settings if name != SEED]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row.settings[name]) for name in others), []).append(row)
    cells = [[*key, *_spread(group)] for key, group in groups.items()]
    heads = [*others, "finished", "return", "evaluation"]
    return [ResultTable("Finished runs over seeds", heads, cells, set(range(len(others))))]


def _spread(rows: Collection[Row]) -> list[str]:
    ended = [row for row in rows if row.state == "finished"]
    figures = [[row.value for row in ended], [row.evaluation for row in ended]]
    return [f"{len(ended)} of {len(rows)}", *(_mean([v for v in values if v is not None]) for values in figures)]


def _mean(values: Sequence[float]) -> str:
    if len(values) < 2:
        return _digits(values[0] if values else None)
    return f"{_digits(statistics.mean(values))} +- {_digits(statistics.stdev(values))}"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"
