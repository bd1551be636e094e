"""Our replay store beside other replay buffers, in turns: medians and ratios of medians, as JSON and as tables.

python -m benchmarks.replay.run --tasks sequences mixed --rounds 5 --out replay.json

For each case, every system's process fills its store and waits; then each measures one round in turn, in an order that
moves on by one every round, because the machine's speed drifts by more than what is measured.

The contract. A system is a module that takes the flags of `benchmarks.replay.peers.rounds.flags` (ours can use that
module: it needs only numpy). With `--turns` it prints {"ready": true} when it is filled and warm, and for every line
that it reads one JSON object on a line of stdout, until stdin ends. Lines that do not begin with "{" are ignored. Rates
are items a second; an item of sequences is a window of 32 rows, and inserting counts 32 new rows of a stream as one
item, however many windows begin in them. Keys by task (others are ignored):

    sequences    items_per_second    batches of 64 windows; `prioritised`: 64 new priorities after every batch
                 plain_per_second    (ours) a plain numpy gather of as many blocks from the same mapped segments
    transitions  items_per_second    batches of 256 of 100,000 CartPole transitions, the same
    insert       items_per_second    into a full store; `--grain step`: one row of 8 streams a call, `block`: 32 rows
    mixed        idle_per_second     sampling alone; then while another process (or thread) inserts:
                 paced_per_second, paced_ratio, paced_inserts_per_second    200 items a second; ratio to idle
                 flat_per_second, flat_ratio, flat_inserts_per_second       as fast as it can
    bytes        bytes_per_step      of real frames, as kept while the run lasts
                 archived_bytes_per_step    (ours) as kept afterwards

`--offsets any`: windows of one episode that may begin at any row and overlap; `aligned`: disjoint ones. `--frames`:
sprites, noise, or a folder of one COLUMN.npy of (streams, rows, *shape) for each column. `--task`, `--select`,
`--batch`, `--rows`, `--streams`, `--seconds` and `--seed` mean what they say.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.replay.systems import HOUSE, OURS, SYSTEMS, prepare, recording, variables

LIMIT = 600.0
"""Seconds that a system may take to fill its store, or for one round."""

METRICS = {
    "sequences": ("items_per_second", "plain_per_second"),
    "transitions": ("items_per_second",),
    "insert": ("items_per_second",),
    "mixed": (
        *("idle_per_second", "paced_per_second", "paced_ratio", "paced_inserts_per_second"),
        *("flat_per_second", "flat_ratio", "flat_inserts_per_second"),
    ),
    "bytes": ("bytes_per_step", "archived_bytes_per_step"),
}
RECORDED_ROWS = 65_536


@dataclass(frozen=True)
class Case:
    """One comparison: what is done and by whom."""

    task: str
    flags: dict[str, str]
    systems: tuple[str, ...]

    def title(self) -> str:
        """The task and what sets the case apart."""
        return ", ".join([self.task, *self.flags.values()])

    def arguments(self, seconds: float, seed: int, frames: Path | None) -> list[str]:
        """The flags for a system's process."""
        given = {"task": self.task, "seconds": str(seconds), "seed": str(seed)} | self.flags
        if frames is not None:
            given["frames"] = str(frames)
        return ["--turns", *(part for name, value in given.items() for part in (f"--{name}", value))]


ANY = (OURS, "numpy", "torchrl", "torchrl, 1 thread", "reverb", "reverb, server inside")
ALIGNED = (*ANY, "cpprb")
INSERTING = (OURS, "torchrl", "torchrl, 1 thread", "reverb")


def cases() -> list[Case]:
    """All of them, in the order in which they run."""
    chosen = [
        Case("sequences", {"select": select, "offsets": offsets}, systems)
        for offsets, systems in (("any", ANY), ("aligned", ALIGNED))
        for select in ("prioritised", "uniform")
    ]
    noise = {"select": "prioritised", "offsets": "any", "frames": "noise"}
    chosen.append(Case("sequences", noise, (OURS, "torchrl", "reverb", "reverb, server inside")))
    for offsets in ("any", "aligned"):
        more = (*INSERTING, "cpprb", "numpy") if offsets == "aligned" else INSERTING
        chosen.append(Case("insert", {"grain": "step", "offsets": offsets}, (*more, "reverb, structured writer")))
        if offsets == "aligned":
            chosen.append(Case("insert", {"grain": "block", "offsets": offsets}, more))
    chosen.append(Case("insert", {"grain": "block", "offsets": "any"}, tuple(n for n in INSERTING if n != "reverb")))
    for offsets, system in (("any", ()), ("aligned", ("cpprb",))):
        beside = (OURS, "torchrl", "torchrl, 1 thread", "reverb", "reverb, server inside", *system)
        chosen.append(Case("mixed", {"select": "prioritised", "offsets": offsets}, beside))
    chosen.append(Case("transitions", {"select": "prioritised"}, ALIGNED))
    return [
        *chosen,
        *(Case("bytes", {"offsets": offsets}, (OURS, "numpy", "reverb")) for offsets in ("any", "aligned")),
    ]


class Failed(Exception):
    """A system's process ended, or took too long; says what it last wrote to stderr."""


class Turns:
    """A system's process, which measures one round when it is told to."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path) -> None:
        self.name, system = name, SYSTEMS[name]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [*system.command(folder), *arguments],
            cwd=HOUSE,
            env=variables(system, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def answer(self) -> dict[str, float]:
        """The next JSON line of the process."""
        assert self._process.stdout is not None
        timer = threading.Timer(LIMIT, self._process.kill)
        timer.start()
        try:
            for line in self._process.stdout:
                if line.startswith("{"):
                    return json.loads(line)
        finally:
            timer.cancel()
        self._log.seek(0)
        raise Failed(f"{self.name} ended ({self._process.wait()}):\n{self._log.read()[-2000:]}")

    def measure(self) -> dict[str, float]:
        """One round."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # The answer says why.
        return self.answer()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
        self._log.close()


def measured(case: Case, names: Sequence[str], arguments: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Rounds of each system; one that fails is left out from then on, and said."""
    frames = recording(arguments.peers_folder, rows=RECORDED_ROWS) if case.task == "bytes" else None
    given = case.arguments(arguments.seconds, arguments.seed, frames)
    given += ["--rows", str(arguments.rows)] if arguments.rows else []
    running: dict[str, Turns] = {}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}

    def attempt(name: str, round_: int | None) -> None:
        try:
            if round_ is None:
                running[name] = Turns(name, given, arguments.peers_folder)
                running[name].answer()
                return
            results[name].append(running[name].measure())
            numbers = [f"{results[name][-1][key]:,.6g}" for key in METRICS[case.task] if key in results[name][-1]]
            print(f"{case.title()}, round {round_ + 1}: {name} {' '.join(numbers)}", file=sys.stderr, flush=True)
        except Failed as failure:
            print(f"{case.title()}: {failure}", file=sys.stderr, flush=True)
            running.pop(name).close()

    try:
        for name in names:
            attempt(name, None)
        for round_ in range(1 if case.task == "bytes" else arguments.rounds):
            turn = list(running)
            for place in range(len(turn)):
                attempt(turn[(place + round_) % len(turn)], round_)
    finally:
        for process in running.values():
            process.close()
    return results


def summary(task: str, rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict]:
    """Median and range of every metric of each system, and how many times as fast (or small) ours is."""
    found: dict[str, dict] = {}
    for name, lines in rounds.items():
        columns = {key: [line[key] for line in lines if key in line] for key in METRICS[task]}
        found[name] = {
            key: {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
            for key, values in columns.items()
            if values
        }
    first = METRICS[task][0]
    ours = found.get(OURS, {}).get(first)
    for system in found.values():
        if ours and first in system:
            ratio = ours["median"] / system[first]["median"]
            system["ours_is"] = round(1 / ratio if task == "bytes" else ratio, 3)
    return found


def markdown(title: str, task: str, found: dict[str, dict], rounds: int) -> str:
    """A table of a summary."""
    columns = [key for key in METRICS[task] if any(key in system for system in found.values())]
    heads = "".join(f" {key.replace('_', ' ')} |" for key in columns)
    lines = [
        f"### {title} (median of {rounds})",
        "",
        f"| system |{heads} ours is |",
        "|---|" + "--:|" * (len(columns) + 1),
    ]
    for name, system in found.items():
        cells = [
            "{median:,.5g} ({lowest:,.4g} to {highest:,.4g})".format(**system[key]) if key in system else "-"
            for key in columns
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {system.get('ours_is', '-')} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure every case in turn; JSON after each case to a file, all tables to stdout at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(METRICS), default=list(METRICS))
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each timing")
    parser.add_argument("--rows", type=int, help="held by each store, instead of 65536 (transitions: 100000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for a JSON line of each case")
    parser.add_argument("--peers-folder", type=Path, default=Path.home() / ".cache" / "contrail" / "peers")
    arguments = parser.parse_args()
    arguments.peers_folder = arguments.peers_folder.resolve()
    tables = []
    for case in (case for case in cases() if case.task in arguments.tasks):
        names = [name for name in case.systems if name in arguments.systems]
        for name in names:
            prepare(SYSTEMS[name].environment, arguments.peers_folder)
        found = summary(case.task, measured(case, names, arguments))
        facts = {"benchmark": "replay", "task": case.task, "cores": os.cpu_count(), "rounds": arguments.rounds}
        line = json.dumps(facts | case.flags | {"systems": found})
        print(line, flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(line + "\n")
        tables.append(markdown(case.title(), case.task, found, arguments.rounds))
    print("\n".join(tables))


if __name__ == "__main__":
    main()
