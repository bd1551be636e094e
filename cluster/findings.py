"""What the doctor says: findings, a line each, and the exit code that they make."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.text import Text

Level = Literal["ok", "warning", "error"]

STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: error: it will not work, or strangers can get in; warning: it may not work, or not as one thinks.
        subject: what was looked at, in a word or two.
        what: was found.
        todo: what to do about it; empty where there is nothing.
    """

    level: Level
    subject: str
    what: str
    todo: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<7}  {self.subject:<14}  {self.what}"
        # Ray and the system put some messages on several lines.
        return " ".join(f"{line}: {self.todo}".splitlines() if self.todo else line.splitlines())


def ok(subject: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", subject, what)


def warning(subject: str, what: str, todo: str) -> Finding:
    """It may not work, or not as one thinks."""
    return Finding("warning", subject, what, todo)


def error(subject: str, what: str, todo: str) -> Finding:
    """It will not work, or strangers can get in."""
    return Finding("error", subject, what, todo)


def show(findings: Iterable[Finding], console: Console | None = None) -> int:
    """Print findings as they come, coloured on a terminal and plain elsewhere; 1 if one is an error, else 0."""
    console = console or Console(highlight=False)
    counts: dict[Level, int] = {"ok": 0, "warning": 0, "error": 0}
    for finding in findings:
        counts[finding.level] += 1
        text = Text(str(finding))
        text.stylize(STYLES[finding.level], 0, len(finding.level))
        console.print(text, soft_wrap=True)
    console.print(f"{counts['error']} errors, {counts['warning']} warnings", soft_wrap=True)
    return int(counts["error"] > 0)
