"""What a person sees while a run trains: a live table on a terminal, one plain line every few seconds elsewhere."""

import time
from collections import deque
from collections.abc import Mapping
from typing import SupportsFloat

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

RATE_SECONDS = 30.0
"""Env steps a second, and so the time left, are measured over this long: smooth, and soon right after a change."""

ROWS = (
    # in the table, in a line, tag, format
    ("episodes", "episodes", "rollout/episodes", ",.0f"),
    ("return, last 100 episodes", "return", "rollout/ep_rew_mean", ".2f"),
    ("episode length", "", "rollout/ep_len_mean", ",.0f"),
    ("policy loss", "policy loss", "train/policy_gradient_loss", ".4f"),
    ("value loss", "value loss", "train/value_loss", ".4f"),
    ("contrastive loss", "contrast loss", "contrast/loss", ".3f"),
    ("contrastive accuracy", "accuracy", "contrast/accuracy", ".1%"),
    ("policy lag, versions", "lag", "staleness/mean", ".2f"),
    ("actors", "", "health/actors", ",.0f"),
)


class Display:
    """Progress of a run, from the metrics it writes. Rows appear with the first value of their tag.

    On a terminal a table that redraws itself twice a second in a thread of its own, until the display is left;
    elsewhere (a pipe, a log file) lines without any control characters, flushed.

    Args:
        title: over the table.
        total_steps: env steps after which the run ends.
        console: where to; None: standard output.
        seconds_per_line: at most one plain line in so many seconds.
        elapsed: seconds for which the run has been going on already.
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        *,
        console: Console | None = None,
        seconds_per_line: float = 5.0,
        elapsed: float = 0.0,
    ) -> None:
        self.title, self.total_steps, self.seconds_per_line = title, total_steps, seconds_per_line
        self._console = console or Console()
        self._live: Live | None = None
        self._steps = 0
        self._values: dict[str, float] = {}
        now = time.monotonic()
        self._started = now - elapsed
        self._progress: deque[tuple[float, int]] = deque()
        self._last_line = now
        self._unprinted = False
        self._verdict = ""

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=2)
            self._live.start(refresh=True)
        else:
            self._print(self.title)
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
            return
        if self._unprinted:
            self._print(self._line())
        if self._verdict:
            self._print(self._verdict)

    def update(self, steps: int, values: Mapping[str, SupportsFloat], verdict: str = "") -> None:
        """Show new numbers.

        Args:
            steps: env steps so far.
            values: metrics by tag; those of earlier calls stay until they are given again.
            verdict: what limits the run: under the table, and in the end under the lines; "": not known.
        """
        now = time.monotonic()
        self._steps, self._unprinted, self._verdict = steps, True, verdict
        self._values = self._values | {tag: float(value) for tag, value in values.items()}
        self._progress.append((now, steps))
        while now - self._progress[0][0] > RATE_SECONDS and len(self._progress) > 2:
            self._progress.popleft()
        if self._live is None and now - self._last_line >= self.seconds_per_line:
            self._print(self._line())
            self._last_line, self._unprinted = now, False

    def note(self, text: str) -> None:
        """Say something once: above the table, or as a line."""
        if self._live is None:
            self._print(text)
        else:
            self._console.print(Text(text))

    def _print(self, text: str) -> None:
        """A line as it is: the console would fold it at 80 columns where there is no terminal."""
        print(text, file=self._console.file, flush=True)

    @property
    def steps_per_second(self) -> float | None:
        """Env steps a second of late: the run's own figure where it gives one, else measured here; None: not known."""
        if "time/fps" in self._values:
            return self._values["time/fps"]
        progress = list(self._progress)
        if len(progress) < 2 or progress[-1][0] <= progress[0][0]:
            return None
        return (progress[-1][1] - progress[0][1]) / (progress[-1][0] - progress[0][0])

    def _figures(self) -> list[tuple[str, str, str]]:
        """What there is to show: name in the table, name in a line, value."""
        rate = self.steps_per_second
        figures = [] if rate is None else [("env steps/s", "env steps/s", f"{rate:,.0f}")]
        figures += [
            (name, short, format(self._values[tag], form)) for name, short, tag, form in ROWS if tag in self._values
        ]
        figures.append(("time", "time", clock(time.monotonic() - self._started)))
        if rate:
            figures.append(("time left", "left", clock(max(0, self.total_steps - self._steps) / rate)))
        return figures

    def _line(self) -> str:
        figures = [f"{short} {value}" for _, short, value in self._figures() if short]
        return "  ".join([f"env steps {done(self._steps, self.total_steps)}", *figures])

    def _table(self) -> Group:
        table = Table(show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_row("env steps", done(self._steps, self.total_steps))
        table.add_row("", ProgressBar(total=self.total_steps, completed=self._steps, width=24))
        for name, _, value in self._figures():
            table.add_row(name, value)
        below = [Text(self._verdict)] if self._verdict else []
        return Group(Text(self.title, style="bold"), table, *below)


def done(steps: int, of: int) -> str:
    """How far a run is."""
    return f"{steps:,} of {of:,} ({min(100, 100 * steps // of)}%)"


def clock(seconds: float) -> str:
    """A time span as people read it: 0:07, 12:40, 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
