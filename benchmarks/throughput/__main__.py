"""Throughput of ours and of Stable-Baselines3 in turns: the ratio of medians, as JSON and as a table.

python -m benchmarks.throughput                                    # breakout
python -m benchmarks.throughput cartpole halfcheetah minigrid trpo --rounds 5

The same work for both, strictly on-policy: environments, rows, epochs, minibatches and networks. In turns, because the
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

from benchmarks.peer import PEERS, sb3
from benchmarks.throughput.tasks import Measured, commands
from benchmarks.timed import HOUSE

Speed = dict[str, float]
"""`steps_per_second` and `cpu_microseconds` of a step."""


def measure(command: Sequence[str | Path]) -> Speed:
    """What a command prints as JSON in its last line.

    Raises:
        SystemExit: the command failed; says how it ended.
    """
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summary(measured: dict[str, list[Speed]]) -> dict[str, Speed]:
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


def markdown(results: dict[str, Speed], rounds: int) -> str:
    """A table of a summary."""
    lines = [
        f"| system | steps/s, median of {rounds} | range | ratio of medians | CPU us a step |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {row['median']:,.0f} | {row['lowest']:,.0f}-{row['highest']:,.0f} | {row['ratio']:.2f} "
        f"| {row['cpu_microseconds']:,.0f} |"
        for name, row in results.items()
    ]
    return "\n".join(lines)


def main(
    tasks: tyro.conf.Positional[tuple[Measured, ...]] = ("breakout",),
    *,
    rounds: int = 3,
    iterations: int = 0,
    systems: tuple[str, ...] = (),
    peer: bool = True,
    peers_folder: Path = PEERS,
) -> None:
    """Measure in rounds, then print one JSON line and the table of each task.

    Args:
        tasks: one after the other.
        rounds: measurements of each system.
        iterations: counted in each measurement; 0: as many as suit the task.
        systems: whose names contain one of these; none given: all.
        peer: measure Stable-Baselines3, too.
        peers_folder: of the peers' virtual environment, which is made the first time.
    """
    interpreter = sb3(peers_folder) if peer else None
    for task in tasks:
        todo = commands(task, interpreter, iterations=iterations)
        todo = {name: todo[name] for name in todo if not systems or any(part in name for part in systems)}
        measured: dict[str, list[Speed]] = {name: [] for name in todo}
        for number in range(1, rounds + 1):
            for name, command in todo.items():
                measured[name].append(found := measure(command))
                speed = f"{found['steps_per_second']:.0f} steps/s, {found['cpu_microseconds']:.0f} us of CPU a step"
                print(f"{task}, round {number} of {rounds}: {name} {speed}", file=sys.stderr, flush=True)
        results = summary(measured)
        print(json.dumps({"benchmark": f"throughput {task}", "cores": os.cpu_count(), "results": results}))
        print(markdown(results, rounds), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
