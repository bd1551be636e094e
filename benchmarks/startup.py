"""From process start to the first learner step: seconds by the clock, and of the processor, all processes together.

python -m benchmarks.startup ppo curl_ppo --rounds 5 --flags=--topology.local

Each is a fresh `contrail train` that stops after its first learner step. `begun` is when that step began, `done` when
its numbers were written.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import tyro

from benchmarks.timed import CONTRAIL, timed
from cluster.metrics import read_metrics


def main(
    recipes: tyro.conf.Positional[tuple[str, ...]] = ("ppo", "curl_ppo"),
    *,
    rounds: int = 5,
    flags: tuple[str, ...] = (),
) -> None:
    """Start each recipe in turns, and print a JSON line of its medians.

    Args:
        recipes: to train.
        rounds: starts of each.
        flags: further ones for `contrail train`.
    """
    found: dict[str, list[dict[str, float]]] = {recipe: [] for recipe in recipes}
    for _ in range(rounds):
        for recipe in recipes:
            found[recipe].append(started(recipe, flags))
    for recipe, runs in found.items():
        medians = {name: round(statistics.median(run[name] for run in runs), 2) for name in runs[0]}
        worst = max(run["done"] for run in runs)
        print(json.dumps({"benchmark": f"startup {recipe}", "flags": flags} | medians | {"latest": worst}), flush=True)


def started(recipe: str, flags: tuple[str, ...]) -> dict[str, float]:
    """One start."""
    with tempfile.TemporaryDirectory() as folder:
        place = ["--run.folder", folder, "--run.name", "run", "--run.until", "1"]
        before = time.time()
        used = timed([*CONTRAIL, "train", recipe, *place, *flags]).cpu
        first = next(line for line in read_metrics(Path(folder) / "run") if "train/version" in line)
    done = first["time"] - before
    return {"begun": round(done - first["time/learner_update"], 2), "done": round(done, 2), "cpu": used}


if __name__ == "__main__":
    tyro.cli(main)
