"""Throughput of Breakout PPO, ours and Stable-Baselines3 in turns: the ratio of medians, as JSON and as a table.

The same work for both: 8 environments x 128 steps, 4 epochs x 4 minibatches of 256, 84x84x4 frames, the Nature network.
In turns, because the machine's speed drifts by more than what is measured. Every measurement is a process of its own
that drops its first iteration.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.timed import HOUSE

PEER = "sb3"
PEER_PACKAGES = ["stable-baselines3", "ale-py", "opencv-python-headless"]


def prepare_peer(folder: Path, name: str, packages: Sequence[str]) -> Path:
    """The interpreter of a peer's virtual environment, which is made the first time (a minute or two)."""
    environment, ready = folder / name, folder / name / "ready"
    python = environment / "bin" / "python"
    if not ready.exists():
        print(f"setting up {environment} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        # The very version of torch first: a later requirement then accepts it instead of fetching a CUDA build.
        for wanted in (["torch==2.13.0"], packages):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        ready.touch()
    return python


def measure(command: Sequence[str | Path]) -> float:
    """Steps a second that a command prints as JSON in its last line.

    Raises:
        SystemExit: the command failed; says how it ended.
    """
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["steps_per_second"])


def commands(peer: Path, precisions: Sequence[str], iterations: int) -> dict[str, list[str | Path]]:
    """What to measure, in the order of a round. The peer comes first."""
    count, threads = ["--iterations", str(iterations)], ["--threads", str(os.cpu_count())]
    ours = [sys.executable, "-m", "benchmarks.ours_breakout", *count]
    return {PEER: [peer, HOUSE / "benchmarks" / "peers" / "sb3_breakout.py", *count, *threads]} | {
        f"ours {precision}": [*ours, "--precision", precision] for precision in precisions
    }


def summary(measured: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, range, and ratio to the peer's median, for each system."""
    peer = statistics.median(measured[PEER])
    return {
        name: {
            "median": round(statistics.median(speeds), 1),
            "lowest": round(min(speeds), 1),
            "highest": round(max(speeds), 1),
            "ratio": round(statistics.median(speeds) / peer, 2),
        }
        for name, speeds in measured.items()
    }


def markdown(results: dict[str, dict[str, float]], rounds: int) -> str:
    """A table of a summary."""
    lines = [f"| system | steps/s, median of {rounds} | range | ratio of medians |", "|---|--:|--:|--:|"]
    lines += [
        f"| {name} | {row['median']:.0f} | {row['lowest']:.0f}-{row['highest']:.0f} | {row['ratio']:.2f} |"
        for name, row in results.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure in rounds, then print one JSON line and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each system")
    parser.add_argument("--iterations", type=int, default=4, help="counted iterations in each measurement")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--peers-folder", type=Path, default=Path.home() / ".cache" / "contrail" / "peers")
    arguments = parser.parse_args()
    todo = commands(
        prepare_peer(arguments.peers_folder.resolve(), PEER, PEER_PACKAGES), arguments.precisions, arguments.iterations
    )
    measured: dict[str, list[float]] = {name: [] for name in todo}
    for number in range(1, arguments.rounds + 1):
        for name, command in todo.items():
            measured[name].append(measure(command))
            speed = f"{measured[name][-1]:.0f} steps/s"
            print(f"round {number} of {arguments.rounds}: {name} {speed}", file=sys.stderr, flush=True)
    results = summary(measured)
    print(json.dumps({"benchmark": "breakout_ppo_throughput", "cores": os.cpu_count(), "results": results}))
    print(markdown(results, arguments.rounds))


if __name__ == "__main__":
    main()
