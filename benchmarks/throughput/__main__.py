"""Throughput of ours and of peers in turns: ratios of medians, as JSON and as a table.

python -m benchmarks.throughput                                    # breakout
python -m benchmarks.throughput cartpole halfcheetah minigrid trpo --rounds 5
python -m benchmarks.throughput cartpole --peers sb3 rllib torchrl tianshou

The same work for all, strictly on-policy: environments, rows, epochs, minibatches and networks. In turns, because the
machine's speed drifts by more than what is measured. Every measurement is a process of its own that drops its first
iterations. Beside the clock, which other processes of the machine slow down, the table has the processor's time of a
step, of all processes of a system together; that of Ray's own services is in it.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from benchmarks.peer import INSTALLED, PEERS, Peer, interpreter
from benchmarks.throughput.tasks import SUIT, Measured, commands
from benchmarks.timed import HOUSE

Speed = dict[str, float]
"""`steps_per_second` and `cpu_microseconds` of a step."""
Row = dict[str, float]
"""A system's line of the table: `median`, `lowest` and `highest` speed, `ratio`, `cpu_microseconds`."""


def measure(command: Sequence[str | Path]) -> Speed:
    """What a command prints as JSON in its last line.

    Raises:
        SystemExit: the command failed; says how it ended.
    """
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def best_peer(results: dict[str, Row]) -> str | None:
    """The fastest by its median, where there is one."""
    return max((name for name in results if name in INSTALLED), key=lambda name: results[name]["median"], default=None)


def summary(measured: dict[str, list[Speed]]) -> dict[str, Row]:
    """Medians, range, and ratio to the first system's median, for each system."""
    speeds = {name: [one["steps_per_second"] for one in found] for name, found in measured.items()}
    first = statistics.median(next(iter(speeds.values())))
    return {
        name: {
            "median": round(statistics.median(found), 1),
            "lowest": round(min(found), 1),
            "highest": round(max(found), 1),
            "ratio": round(statistics.median(found) / first, 2),
            "cpu_microseconds": round(statistics.median(one["cpu_microseconds"] for one in measured[name]), 1),
        }
        for name, found in speeds.items()
    }


def markdown(results: dict[str, Row], rounds: int) -> str:
    """A table of a summary; ratios are of medians, to the first system and to the fastest peer."""
    best = best_peer(results)
    heads = ["system", f"steps/s, median of {rounds}", "range", "ratio of medians", "CPU us a step"]
    heads += [f"x the best peer, {best}"] if best else []
    lines = [f"| {' | '.join(heads)} |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for name, row in results.items():
        line = f"| {name} | {row['median']:,.0f} | {row['lowest']:,.0f}-{row['highest']:,.0f} | {row['ratio']:.2f} "
        beside = f"| {row['median'] / results[best]['median']:.2f} |" if best else "|"
        lines.append(f"{line}| {row['cpu_microseconds']:,.0f} {beside}")
    return "\n".join(lines)


def asked_for(name: str, systems: Sequence[str]) -> bool:
    """Whether a system is to be measured."""
    return not systems or any(part in name for part in systems)


def main(
    tasks: tyro.conf.Positional[tuple[Measured, ...]] = ("breakout",),
    *,
    rounds: int = 3,
    iterations: int = 0,
    systems: tuple[str, ...] = (),
    peers: tuple[Peer, ...] = tuple(INSTALLED),
    peers_folder: Path = PEERS,
) -> None:
    """Measure in rounds, then print one JSON line and the table of each task.

    Args:
        tasks: one after the other.
        rounds: measurements of each system.
        iterations: counted in each measurement; 0: as many as suit the task.
        systems: whose names contain one of these; none given: all.
        peers: to measure where they suit a task; `--peers` with nothing behind it: ours alone.
        peers_folder: of the peers' virtual environments, which are made the first time.
    """
    for task in tasks:
        pythons = {
            peer: interpreter(peer, peers_folder) for peer in peers if peer in SUIT[task] and asked_for(peer, systems)
        }
        todo = commands(task, pythons, iterations=iterations)
        todo = {name: todo[name] for name in todo if asked_for(name, systems)}
        measured: dict[str, list[Speed]] = {name: [] for name in todo}
        for number in range(1, rounds + 1):
            for name, command in todo.items():
                measured[name].append(found := measure(command))
                speed = f"{found['steps_per_second']:.0f} steps/s, {found['cpu_microseconds']:.0f} us of CPU a step"
                print(f"{task}, round {number} of {rounds}: {name} {speed}", file=sys.stderr, flush=True)
        results = summary(measured)
        about = {"benchmark": f"throughput {task}", "cores": os.cpu_count(), "best_peer": best_peer(results)}
        print(json.dumps(about | {"results": results}))
        print(markdown(results, rounds), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
