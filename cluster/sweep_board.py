"""What a person sees of a sweep while it goes on, and the same in its folder."""

import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from rich.console import Console, Group
from rich.live import Live

from cluster.stop import StopRequest
from cluster.sweep_folder import SweepFolder
from cluster.sweep_table import Looks, Row, shown, write

EVERY, WRITTEN_EVERY = 1.0, 5.0
"""Seconds between two looks, and between two versions of the results."""


class Board:
    """The table of a sweep: on a terminal redrawn, elsewhere lines as states of runs change; all of it in the end.

    Args:
        sweep: the sweep.
        stop: passed on to the runs.
    """

    def __init__(self, sweep: SweepFolder, stop: StopRequest) -> None:
        self._sweep, self._stop, self._looks = sweep, stop, Looks(sweep)
        self._console = Console()
        self._live: Live | None = None
        self._rows: list[Row] = []
        self._broken: Mapping[str, str] = {}
        self._began: dict[str, float] = {}
        self._went_on: dict[str, float] = {}
        self._looked = self._written = 0.0

    def __enter__(self) -> "Board":
        self._look()
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._tables, console=self._console, transient=True)
            self._live.start(refresh=True)
        else:
            self.say(self._title)
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._look()
        write(self._sweep, self._rows, self._title)
        self._console.print(self._tables())

    def look(self, running: AbstractSet[str], broken: Mapping[str, str]) -> None:
        """Look at all runs, if it is time, and pass on that the sweep is to stop.

        Args:
            running: those that have a trial.
            broken: those whose trial broke, and why.
        """
        if self._stop.signal and not self._sweep.stopping:
            self._sweep.ask_to_stop()
            self.say("stopping: waiting for checkpoints; once more Ctrl-C does not wait")
        now = time.monotonic()
        self._began |= {name: now for name in running if name not in self._began}
        self._went_on |= {name: now - self._began[name] for name in running}
        if now - self._looked > EVERY:
            self._broken = broken
            self._look()

    def _look(self) -> None:
        before = {row.run: row.state for row in self._rows}
        self._rows, self._looked = self._looks.rows(self._broken, self._went_on), time.monotonic()
        if self._live is None:
            for row in self._rows:
                if before.get(row.run, row.state) != row.state:
                    self.say(f"{row.run}: {row.state}, {row.steps:,} env steps")
        if self._looked - self._written > WRITTEN_EVERY:
            write(self._sweep, self._rows, self._title)
            self._written = self._looked

    def _tables(self) -> Group:
        return shown(self._rows, self._sweep)

    @property
    def _title(self) -> str:
        return f"{len(self._sweep.runs)} runs of {self._sweep.recipe}, in {self._sweep.path}"

    def say(self, text: str) -> None:
        """Print a line, above the table where that is redrawn."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
