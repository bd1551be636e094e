"""Costs, a design and a finished run that tests of plans have in common."""

import json
from dataclasses import replace
from pathlib import Path

from cluster.plan_costs import Costs, Line
from cluster.plan_design import Design, Forecast
from cluster.plan_model import Simulation
from cluster.run_folder import RunFolder

COSTS = Costs(
    act_work=Line(0.010, 0.002),
    act_rest=Line(0.001, 0.0005),
    learn_work=Line(0.020, 4e-5),
    learn_rest=Line(0.002, 1e-6),
    commit=Line(0.001, 2e-5),
    draw=0.0015,
    publish=0.002,
    read=0.001,
    advance=0.004,
    report=0.0008,
    look=1e-7,
    far_row=2e-6,
    hop=0.0005,
    ray=0.0,
    spread=0.0,
    decisions=31.7,
)
DESIGN = Design(actors=1, envs=8, batch=256, row_bytes=60, block_bytes=60 * 256, weight_bytes=20_000, cores=16)


def forecast(costs: Costs = COSTS, **design: int | float) -> Forecast:
    return Simulation(costs, replace(DESIGN, **design)).forecast()


def act(costs: Costs, envs: int = 8) -> float:
    return costs.act_work(envs) + costs.act_rest(envs)


def learn(costs: Costs, rows: float = 256) -> float:
    return costs.learn_work(rows) + costs.learn_rest(rows)


def run_folder(folder: Path, *flags: str, steps: int = 20) -> Path:
    """A run that somebody made: a block of 40 ms, an update of 30 ms, 100 ms and 254 env steps a learner step."""
    run = RunFolder.create(folder / "run")
    run.save_experiment({"recipe": "ppo", "arguments": [*flags]})
    stages = {"wait": 9.0, "room": 3.0, "inference": 0.02, "environment": 0.015, "write": 0.005}
    values = {f"time/actor_{stage}": seconds for stage, seconds in stages.items()}
    values |= {"time/learner_wait": 5.0, "time/learner_gather": 0.01, "time/learner_update": 0.02}
    lines = [{"step": 254 * n, "time": 0.1 * n, **values} for n in range(1, steps + 1)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run.path
