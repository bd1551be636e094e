"""`contrail status` and `contrail watch`: how a run is that somebody started, from the files in its folder alone."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import tyro

from cluster.condition import DRIVER, ERROR, FILE, Condition
from cluster.display import Display, clock, done
from cluster.following import NewRows
from cluster.logs import last_words
from cluster.run_folder import RunFolder, RunFolderError
from cluster.standing import Standing
from cluster.vitals import Vitals
from cluster.wishes import Wishes

SILENT = 30.0
"""Seconds after which it is said that a process was not heard of: it is in a long block, or hangs."""
HEADINGS = ("process", "state", "host", "pid", "rate", "mostly", "memory", "restarts", "last words")


@dataclass(frozen=True)
class Status:
    """Tell how a run is: its processes, and how it ended if it did. Exit code 1 if it failed or died.

    Attributes:
        run: folder of the run.
    """

    run: tyro.conf.Positional[Path]


@dataclass(frozen=True)
class Watch:
    """Watch a run that somebody else started, until it ends. Exit code 1 if it fails or dies.

    Attributes:
        run: folder of the run.
    """

    run: tyro.conf.Positional[Path]


def command_status(arguments: list[str]) -> int:
    """contrail status RUN."""
    folder = RunFolder.open(tyro.cli(Status, args=arguments, prog="contrail status").run).path
    condition, alive = look(folder)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    said = [line for one in (condition.title, *sentences(condition, folder, alive=alive)) for line in one.splitlines()]
    print(*(_broken(line, width) if width else line for line in said), "", sep="\n")
    print(*(line[:width] for line in table(condition, folder, alive=alive)), sep="\n")
    return int(bad(condition, alive=alive))


def _broken(line: str, width: int) -> str:
    """Over several lines, but no path and no flag, which are there to be copied."""
    return fill(line, width, break_long_words=False, break_on_hyphens=False)


def command_watch(arguments: list[str], seconds: float = 1.0) -> int:
    """contrail watch RUN; looks every so many seconds."""
    folder = RunFolder.open(tyro.cli(Watch, args=arguments, prog="contrail watch").run).path
    (condition, alive), rows = look(folder), NewRows(folder)
    seen = time.time() if alive else condition.written
    with Display(condition.title, condition.of, elapsed=seen - condition.started) as display:
        while True:
            condition, alive = look(folder)
            for row in rows.read():  # after a look at whether it lives: what it wrote last is there
                values = {tag: value for tag, value in row.items() if tag not in ("step", "time")}
                if "eval/mean_reward" not in row:  # which may be of weights from some steps ago
                    display.update(int(row["step"]), values, condition.verdict)
            if not alive:
                break
            time.sleep(seconds)
    print(*sentences(condition, folder, alive=alive), sep="\n")
    return int(bad(condition, alive=alive))


def look(folder: Path) -> tuple[Condition, bool]:
    """The newest condition of a run, and whether its driver lives.

    Raises:
        RunFolderError: it never wrote one.
    """
    condition = _newest(folder)
    if condition.alive(folder):
        return condition, True
    return _newest(folder), False  # it may have come to its end after the first look: that is written before it goes


def _newest(folder: Path) -> Condition:
    condition = Condition.read(folder)
    if condition is None:
        raise RunFolderError(f"{folder} has no {FILE}: its driver writes one as soon as it starts")
    return condition


def bad(condition: Condition, *, alive: bool) -> bool:
    """Whether the run ended by itself before its end."""
    return condition.phase == "failed" or not (alive or condition.over)


def sentences(condition: Condition, folder: Path, *, alive: bool) -> list[str]:
    """What there is to say of the run as a whole, the first error on top."""
    newest = RunFolder(folder).checkpoints()[-1:]
    progress = [f"env steps {done(condition.steps, condition.of)}"]
    if alive and condition.rate is not None:
        progress.append(f"{condition.rate:,.0f} a second")
    if condition.moved:
        progress.append(f"last learner step {moment(condition.moved)}")
    progress.append(f"newest checkpoint at {int(newest[0].name):,}" if newest else "no checkpoint")
    best, problem = _best(folder)
    lines = [_verdict(condition, folder, alive=alive), "; ".join(progress + best), *problem]
    if alive and condition.verdict:
        lines.append(condition.verdict)
    if alive and (wished := Wishes(RunFolder(folder)).sentence()):
        lines.append(wished)
    if newest and not alive and condition.phase != "finished":
        lines.append(f"continue with: contrail resume {folder}")
    return lines


def _best(folder: Path) -> tuple[list[str], list[str]]:
    """Which checkpoint played best, if any was played, and what is wrong with the file that tells it, if anything."""
    try:
        standing = Standing.read(RunFolder(folder))
    except RunFolderError as error:
        return [], [str(error)]
    told = f"best at {int(standing.best or 0):,}, mean return {standing.mean_return:.5g}"
    return [told] if standing.best else [], []


def _verdict(condition: Condition, folder: Path, *, alive: bool) -> str:
    if condition.phase == "failed":
        try:
            return f"FAILED {(folder / ERROR).read_text().splitlines()[0]}"
        except (OSError, IndexError):  # the disk was full
            return f"FAILED {condition.why}"
    if condition.over:
        return f"{condition.phase} {condition.why} {moment(condition.written)}".replace("  ", " ")
    if not alive:
        return (
            f"DIED while {condition.phase}, last heard of {moment(condition.written)}; it left no error: it was "
            "killed, its machine went down, or its disk is full"
        )
    late = time.time() - condition.written > 2 * condition.every
    silence = f"; its driver has written nothing since {moment(condition.written)}" if late else ""
    return f"{condition.phase}, started {moment(condition.started)}{silence}"


def table(condition: Condition, folder: Path, *, alive: bool) -> list[str]:
    """All processes, a line each, without the columns of which nothing is known."""
    rows = [HEADINGS, *(_row(condition, process, folder, alive=alive) for process in condition.processes)]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _row(condition: Condition, process: Vitals, folder: Path, *, alive: bool) -> Sequence[str]:
    return (
        process.name,
        _state(condition, process, alive=alive),
        process.host,
        str(process.pid or ""),
        _rate(process),
        process.mostly,
        f"{process.memory / 2**20:,.0f} MiB" if process.memory else "",
        str(process.restarts),
        *(last_words(folder / "logs" / f"{process.name}.log") or [""]),
    )


def _state(condition: Condition, process: Vitals, *, alive: bool) -> str:
    if process.state in ("failed", "died"):
        return process.state
    if not alive or (condition.phase == "evaluating" and process.name != DRIVER):  # the driver plays by itself
        return "died" if process.name == DRIVER and not condition.over else "ended"
    silent = time.time() - process.heard
    return f"{process.state}, silent {clock(silent)}" if process.heard and silent > SILENT else process.state


def _rate(process: Vitals) -> str:
    """Three digits, and all those before the point."""
    if process.rate is None:
        return ""
    return f"{process.rate:,.0f} {process.unit}" if process.rate >= 100 else f"{process.rate:.3g} {process.unit}"


def moment(when: float) -> str:
    """A time as people read it: how long ago, or the date where that is long ago."""
    ago = time.time() - when
    if ago < 3600:
        return f"{clock(max(0.0, ago))} ago"
    return time.strftime("on %Y-%m-%d at %H:%M:%S", time.localtime(when))
