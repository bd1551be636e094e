"""Weak scaling where environments wait: 1 to 64 actors of 50 ms a step, then shorter steps until something is full.

python -m benchmarks.weak

Every actor has one environment that sleeps in each step and reset (`benchmarks.dozing`), as one does that waits for a
robot or a browser: time goes by without a processor, so speed should grow with the actors. First as `contrail scale`
measures it with more and more actors, beside what `contrail plan` foretells from runs of one and two; then with a fixed
number of actors and shorter and shorter sleeps, until they no longer make what they would by sleeping alone. A version
of lag, PPO's small network, one learner and shard.

Beside each run is left how long it took to start, and what its processes' memory came to after the first learner step,
shared pages divided among those who share them. Called again with the same `--folder` it goes on with what was not
measured yet.
"""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.dozing import dozing
from benchmarks.timed import CONTRAIL, HOUSE, family, timed
from benchmarks.weak_table import Weak, markdown, saturation
from cluster.condition import Condition
from cluster.following import NewRows
from cluster.plan import Planner
from cluster.plan_costs import Costs
from cluster.plan_model import Simulation
from cluster.scale import carry_out
from cluster.scale_folder import ScaleFolder
from cluster.scale_measure import LEARNER_STEP, Figure
from cluster.scale_options import ScaleOptions
from cluster.scale_plan import Point, planned
from cluster.scale_results import collected
from cluster.scale_run import Carry, Process
from cluster.stop import stop_requests
from cluster.sweep_grid import grouped

TAKEN = "taken.json"
"""In a run's folder: what `Looking` saw."""
WARM_SECONDS = 5.0
"""That a run's learner steps before its measurement take at least, if only the environments count."""
PATIENCE = 1800.0
"""Seconds that a run may take for its first learner step: 64 processes import torch, on as few cores as there are."""
FLAGS = ("--topology.max-version-lag", "1", "--epochs", "4")


def main(
    *,
    actors: tuple[int, ...] = (1, 4, 16, 64),
    milliseconds: int = 50,
    shorter: tuple[int, ...] = (10, 5, 2),
    at: int = 16,
    rows: int = 32,
    seconds: float = 20.0,
    repeats: int = 1,
    plan: bool = True,
    folder: Path = Path("runs/weak"),
    report: Path = Path("docs/results/weak"),
) -> None:
    """Measure, foretell, and print the tables.

    Args:
        actors: numbers of them that are compared.
        milliseconds: that a step takes there; see `benchmarks.dozing` for those that there are.
        shorter: milliseconds of a step, with which something is to be full.
        at: number of actors there.
        rows: of a block.
        seconds: that each run is measured for.
        repeats: of each run; medians are told.
        plan: foretell the first series, too.
        folder: of the runs.
        report: folder for `weak.json` and `tables.md`.
    """
    lines: dict[str, list[Weak]] = {"scaling": [], "saturation": []}
    with stop_requests() as stop:
        cases = [("scaling", milliseconds, actors), *(("saturation", each, (at,)) for each in shorter)]
        for name, sleep, counts in cases:
            scale = measurement(folder.resolve() / f"{sleep}ms", sleep, counts, rows, seconds, repeats)
            carry_out(scale, Looking(Process(stop)), stop)
            if stop.signal:
                raise SystemExit(128 + stop.signal)
            lines[name] += measured(scale, sleep, rows)
    foretold = forecast(milliseconds, actors, rows, folder.resolve() / "costs.json") if plan else {}
    told = markdown(lines["scaling"], lines["saturation"], foretold)
    report.mkdir(parents=True, exist_ok=True)
    content = {name: [vars(line) for line in found] for name, found in lines.items()} | {"foretold": foretold}
    (report / "weak.json").write_text(json.dumps(content, indent=1) + "\n")
    (report / "tables.md").write_text(told + "\n")
    print(f"\n{told}\n\n{saturation(lines['saturation'])}")
    if sum(map(len, lines.values())) < len(actors) + len(shorter):
        raise SystemExit("runs failed; the same command tries those again")


def measurement(
    path: Path, milliseconds: int, actors: Sequence[int], rows: int, seconds: float, repeats: int
) -> ScaleFolder:
    """What `contrail scale` would measure, in its folder."""
    warm_up = max(3, round(WARM_SECONDS / (rows * milliseconds / 1000)))
    options = ScaleOptions(
        actors=tuple(actors),
        envs_per_actor=(1,),
        seconds=seconds,
        warm_up=warm_up,
        repeats=repeats,
        patience=PATIENCE,
        name=str(path),
    ).checked()
    flags = [*FLAGS, "--env", dozing(milliseconds), "--rows", str(rows)]
    plan, _, _ = planned("ppo", grouped(flags), options)
    scale = ScaleFolder(path, "ppo", flags, HOUSE, plan, options)
    scale.check_goes_on()
    scale.save()
    return scale


class Looking:
    """Carries out a run, and leaves beside it how long it took to start, and what memory it took then; a `Carry`.

    Args:
        carry: who carries it out.
    """

    def __init__(self, carry: Carry) -> None:
        self._carry = carry

    def __call__(self, scale: ScaleFolder, point: Point, repeat: int) -> str:
        """What went wrong, empty for nothing."""
        run, over = scale.run(point, repeat), threading.Event()
        looks = threading.Thread(target=look, args=(run, time.time(), over))
        looks.start()
        try:
            return self._carry(scale, point, repeat)
        finally:
            over.set()
            looks.join()


def look(run: Path, began: float, over: threading.Event) -> None:
    """Wait for a run's first learner step and all of its processes' names, and leave what they take."""
    rows, first = NewRows(run), 0.0
    while not over.wait(0.5):
        first = first or next((row["time"] for row in rows.read() if LEARNER_STEP in row and row["time"] > began), 0.0)
        condition = Condition.read(run)
        if not first or condition is None or not all(process.pid for process in condition.processes):
            continue
        named = {process.pid: process.name for process in condition.processes}
        found = {pid: memory(pid) for pid in family(condition.processes[0].pid)}
        mine = [taken for pid, taken in found.items() if named.get(pid, "").startswith("actor")]
        megabytes = {
            "actor": sum(taken.get("Pss", 0.0) for taken in mine) / max(1, len(mine)),
            "actor_alone": sum(taken.get("Private", 0.0) for taken in mine) / max(1, len(mine)),
            "actor_resident": sum(taken.get("Rss", 0.0) for taken in mine) / max(1, len(mine)),
            "all": sum(taken.get("Pss", 0.0) for taken in found.values()),
        }
        (run / TAKEN).write_text(json.dumps({"start": first - began, **megabytes}) + "\n")
        return


def memory(pid: int) -> dict[str, float]:
    """MiB of a process: "Rss", "Pss" (shared pages divided among those who share them), "Private"; empty: it ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    sizes = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return {"Rss": sizes["Rss"], "Pss": sizes["Pss"], "Private": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def measured(scale: ScaleFolder, milliseconds: int, rows: int) -> list[Weak]:
    """A line for each number of actors that was measured."""
    lines = []
    for result in collected(scale).results.values():
        if result.error or result.trained is None:
            print(f"{result.point.name} failed: {result.error}", flush=True)
            continue
        taken = [_taken(scale.run(result.point, repeat)) for repeat in result.repeats]
        names = sorted(set.intersection(*(set(each) for each in taken)))
        lines.append(
            Weak(
                actors=result.point.actors,
                milliseconds=milliseconds,
                rows=rows,
                speed=result.trained.median,
                speeds=[each.trained for each in result.repeats.values()],
                taken={name: Figure.of([each[name] for each in taken]).median for name in names},
                values=result.values,
                limit=str(result.limit or ""),
            )
        )
    return lines


def _taken(run: Path) -> Mapping[str, Any]:
    path = run / TAKEN
    return json.loads(path.read_text()) if path.exists() else {}


def forecast(milliseconds: int, actors: Sequence[int], rows: int, costs: Path) -> dict[int, float]:
    """Env steps a second that `contrail plan` foretells, by the number of actors."""
    flags = [*FLAGS, "--env", dozing(milliseconds), "--rows", str(rows), "--envs-per-actor", "1"]
    if not costs.exists():
        timed([*CONTRAIL, "plan", "ppo", *flags, "--actors", "1", "--seconds", "10", "--save", costs])
    planner, found = Planner.of("ppo", [*flags, "--from", str(costs)]), Costs.load(costs)
    return {count: Simulation(found, planner.design(count)).forecast().speed for count in actors}


if __name__ == "__main__":
    tyro.cli(main)
