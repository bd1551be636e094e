"""A query on a running store: how long it takes, and what it costs the run.

python -m benchmarks.replay.query

Trains PPO on Breakout as `benchmarks.ours_breakout` does, in turns of some learner steps: alone, and while another
process asks the run's log and its live rows a question in SQL every two seconds. Prints one JSON line: median latency
inside that process (opening the store, and the question), and agent steps a second of both.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.distributed import Distributed
from cluster.experiment import Spaces, Topology
from recipes.curl_ppo import curl_ppo
from replay.opening import Places

QUESTION = "select policy_version, avg(reward), count(*) from rows group by all order by 1 desc limit 10"
ASKING = """
import contextlib, io, sys, time
from pathlib import Path
from cluster.query import Query, answer
for _ in sys.stdin:
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as answered:
        answer(Query(Path(sys.argv[1]), sys.argv[2], "csv"))
    print(time.perf_counter() - began, len(answered.getvalue()), flush=True)
"""
TURNS, STEPS = 3, 4


def main() -> None:
    """Train and ask in turns."""
    experiment = curl_ppo(contrast=0.0, precision="auto", topology=Topology()).checked()
    with tempfile.TemporaryDirectory() as folder:
        live, kept = Path(folder) / "replay" / "segments", Path(folder) / "replay"
        live.mkdir(parents=True)
        (Path(folder) / "experiment.json").write_text("{}")
        places = Places(live=live, kept=kept, rows="lz4")
        spaces = Spaces.of(experiment.environment)
        with Distributed(experiment, spaces, places=places, logs=Path(folder) / "logs") as world:
            numbers = measure(world, folder)
    print(json.dumps({"benchmark": "query"} | numbers))


def measure(world: Distributed, folder: str) -> dict[str, float]:
    """Speeds and latencies."""
    speeds: dict[str, list[float]] = {"alone": [], "asked": []}
    seconds: list[float] = []
    command = [sys.executable, "-c", ASKING, folder, QUESTION]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as asking:
        assert asking.stdin is not None and asking.stdout is not None
        for _ in range(3):
            world.advance()
        for turn in range(2 * TURNS):
            name = "asked" if turn % 2 else "alone"
            before, began, asked = world.advance().steps, time.perf_counter(), 0
            for _ in range(STEPS):
                if name == "asked" and time.perf_counter() - began >= 2.0 * asked:
                    asking.stdin.write("\n")
                    asked += 1
                after = world.advance().steps
            speeds[name].append((after - before) / (time.perf_counter() - began))
            seconds += [float(asking.stdout.readline().split()[0]) for _ in range(asked)]
        asking.stdin.close()
    alone, asked_speed = statistics.median(speeds["alone"]), statistics.median(speeds["asked"])
    return {
        "latency_seconds": round(statistics.median(seconds), 3),
        "first_latency_seconds": round(seconds[0], 3),
        "steps_per_second_alone": round(alone, 1),
        "steps_per_second_asked": round(asked_speed, 1),
        "ratio": round(asked_speed / alone, 3),
    }


if __name__ == "__main__":
    main()
