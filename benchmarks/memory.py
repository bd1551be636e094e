"""Whether a run's memory stays flat: each process's resident bytes, and the run's files in shared memory, for an hour.

python -m benchmarks.memory --minutes 60

Trains CartPole over a Ray of the run's own, with the store's archive so small that old rows leave it all the time, and
looks once in a while. Leaves `memory.json` and `memory.png` in `--report-in`; exit code 1 where memory grew.

Growth after the first part of the run, in which arenas, caches and the store fill, is the larger of two: the slope of a
straight line (Theil and Sen's: the median over all pairs of looks), and the difference between the medians of the last
and of the first tenth, which also sees a step.
"""

import json
import os
import signal
import statistics
import sys
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import tyro

from benchmarks.chaos.living import Command, say
from cluster.condition import Condition
from cluster.kept import SHARED_MEMORY

Series = dict[str, list[tuple[float, float]]]
"""By process of the run, for Ray's own together, and for the run's files in shared memory: minutes since the first
look, and MiB then."""
RAY, FILES = "Ray's own processes", "/dev/shm"
WARM = 0.25
"""Share of the run before growth counts."""
MOST = 4.0
"""MiB an hour that count as flat: allocators' and the kernel's own drift."""
FOREVER = 10**9


def main(
    *,
    minutes: float = 60.0,
    actors: int = 2,
    learners: int = 1,
    lag: int = 1,
    every: float = 10.0,
    folder: Path = Path("runs/memory"),
    report_in: Path = Path("docs/results/memory"),
) -> None:
    """Train for a while, and look how much memory it takes.

    Args:
        minutes: that it trains.
        actors: of the run.
        learners: of the run.
        lag: of its versions.
        every: seconds between two looks.
        folder: where the run is kept.
        report_in: folder of the report.
    """
    run = folder.resolve() / time.strftime("%Y%m%d-%H%M%S")
    topology = {"actors": actors, "learners": learners, "max-version-lag": lag}
    flags = [word for name, value in topology.items() for word in (f"--topology.{name}", value)]
    kept = ["--run.folder", run.parent, "--run.name", run.name, "--run.rows-gib", 0.02, "--run.checkpoint-seconds", 30]
    command = Command.begin(["train", "ppo", "--steps", FOREVER, *flags, *kept], run)
    try:
        series = look(command, 60 * minutes, every)
        os.kill(command.process.pid, signal.SIGTERM)
        code = command.process.wait()
    finally:
        command.end()
    condition = Condition.read(run)
    steps = condition.steps if condition else 0
    grown = {name: growth(values) for name, values in series.items()}
    report = {"minutes": minutes, "env_steps": steps, "exit_code": code, "growth": grown, "series": series}
    report_in.mkdir(parents=True, exist_ok=True)
    (report_in / "memory.json").write_text(json.dumps(report) + "\n")
    draw(series, report_in / "memory.png")
    print(f"{steps:,} env steps in {minutes:g} minutes\n\n{table(series, grown)}")
    stopped = code == 128 + signal.SIGTERM and bool(series)
    sys.exit(0 if stopped and series[FILES][-1][1] > 0 and max(grown.values()) <= MOST * max(1, minutes / 60) else 1)


def look(command: Command, seconds: float, every: float) -> Series:
    """Memory by process while a run goes on, from its first learner step on."""
    series: Series = defaultdict(list)
    began = 0.0
    while command.goes_on and (not began or time.monotonic() - began < seconds):
        time.sleep(every)
        condition = Condition.read(command.run)
        if condition is None or not condition.steps:
            continue
        began = began or time.monotonic()
        minutes = (time.monotonic() - began) / 60
        ours = {process.pid: process.name for process in condition.processes if process.pid}
        for pid, name in ours.items():
            series[name].append((minutes, resident(pid) / 2**20))
        series[RAY].append((minutes, sum(resident(pid) for pid in command.living() if pid not in ours) / 2**20))
        series[FILES].append((minutes, in_shared_memory(command.run.name) / 2**20))
        say(
            f"{minutes:.1f} min, env step {condition.steps:,}: {sum(found[-1][1] for found in series.values()):.0f} MiB"
        )
    return dict(series)


def resident(pid: int) -> int:
    """Resident bytes of a process of this machine; what it maps of the store's files among them. 0: it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def in_shared_memory(run: str) -> int:
    """Bytes that a run's live segments and kept states take."""
    folders = [path for path in SHARED_MEMORY.iterdir() if f"-{run}-" in path.name and path.is_dir()]
    sizes = []
    for path in (file for folder in folders for file in folder.rglob("*")):
        try:
            sizes.append(path.stat().st_blocks * 512)
        except FileNotFoundError:  # between the listing and the look
            continue
    return sum(sizes)


def growth(values: list[tuple[float, float]]) -> float:
    """MiB an hour."""
    late = [value for value in values if value[0] >= WARM * values[-1][0]]
    thinned = late[:: max(1, len(late) // 200)]
    slopes = [(b - a) / (later - earlier) for (earlier, a), (later, b) in combinations(thinned, 2)]
    tenth, sizes = max(1, len(late) // 10), [size for _, size in late]
    risen = statistics.median(sizes[-tenth:]) - statistics.median(sizes[:tenth])
    hours = max(late[-1][0] - late[0][0], 1e-9) / 60
    return max(60 * statistics.median(slopes), risen / hours) if slopes else 0.0


def table(series: Series, grown: dict[str, float]) -> str:
    """What each took, and by how much it grew."""
    rows = [
        "| process | MiB at first | after a quarter | at the end | most | MiB an hour |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, values in series.items():
        sizes = [size for _, size in values]
        marks = (sizes[0], sizes[int(WARM * len(sizes))], sizes[-1], max(sizes), grown[name])
        rows.append(f"| {name} | {' | '.join(f'{mark:.1f}' for mark in marks)} |")
    return "\n".join(rows)


def draw(series: Series, path: Path) -> None:
    """One curve each."""
    from matplotlib import pyplot

    canvas, axes = pyplot.subplots(figsize=(8, 4))
    for name, values in series.items():
        axes.plot(*zip(*values, strict=True), label=name)
    axes.set(xlabel="minutes", ylabel="MiB", ylim=(0, None), title="Resident memory of a run's processes")
    axes.legend(fontsize=8, ncols=2)
    canvas.tight_layout()
    canvas.savefig(path, dpi=130)


if __name__ == "__main__":
    tyro.cli(main)
