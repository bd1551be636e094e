"""The tables beside other systems: every method is an experiment on every task, and both systems are told the same."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from actors.environments import Environment
from benchmarks.compared import compared
from benchmarks.lines import finished
from benchmarks.results import Run, has_peer, runs_of
from benchmarks.results_table import markdown, speeds
from benchmarks.settings import METHODS, TASKS, told
from learners.trust_region import TrustRegion


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_an_experiment_with_the_settings_that_the_peer_is_told(task: str, method: str) -> None:
    experiment, setting = compared(task=task, method=method).checked(), TASKS[task].settings[method]
    assert (experiment.envs, experiment.rows, experiment.gamma) == (setting.envs, setting.rows, setting.gamma)
    assert any(isinstance(update, TrustRegion) for update in experiment.updates) == (method == "trpo")
    told_peer = told(task, method, seed=2)
    assert asdict(setting).items() <= told_peer.items()
    assert (told_peer["seed"], told_peer["environment"]) == (2, experiment.environment.id)
    assert told_peer["kwargs"] == experiment.environment.kwargs
    assert setting.envs * setting.rows % setting.minibatches == 0, "the peer's minibatches would be uneven"


def test_a_run_is_asked_of_the_peer_only_where_it_has_the_method() -> None:
    runs = runs_of(["cartpole", "memory"], (1, 2))
    assert len(set(runs)) == len(runs) == 2 * (2 * 4 + 4 + 2)
    assert {run.method for run in runs if run.task == "memory" and run.system == "sb3"} == {"ppo", "ppo-kl"}
    assert has_peer(TASKS["cartpole"], "trpo")


def test_breakout_is_without_sticky_actions_as_its_title_says() -> None:
    environments = Environment(TASKS["breakout"].id, {"noop_max": 1, **TASKS["breakout"].kwargs}).make(4)
    try:
        environments.reset([1, 2, 3, 4])
        for action in [1, 2, 3, 0, 2, 2, 3, 3] * 5:
            seen = environments.step(np.full(4, action)).observation["observation"]
            assert (seen == seen[0]).all()
    finally:
        environments.close()


def test_the_empty_room_is_seen_as_numbers() -> None:
    environments = Environment(TASKS["empty"].id).make(2)
    try:
        seen = environments.reset([1, 2])["observation"]
    finally:
        environments.close()
    assert seen.shape == (2, 147) and seen.dtype == "float32"
    assert seen.min() >= 0 and seen.max() <= 1


def test_lines_become_a_table_with_both_systems(tmp_path: Path) -> None:
    lines = [
        asdict(Run("cartpole", "trpo", system, seed))
        | {"evaluation": 400.0 + seed, "training": 300.0, "env_steps": 100_096, "wall_seconds": 9.0, "cpu_seconds": cpu}
        for seed in (1, 2, 3)
        for system, cpu in (("contrail", 8.0), ("sb3", 16.0))
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    done = finished(tmp_path, Run)
    assert set(done) == {run for run in runs_of(["cartpole"], (1, 2, 3)) if run.method == "trpo"}
    table = markdown(list(done.values()))
    assert "| TRPO | Contrail | 402.000 +- 2.484 | 401, 402, 403 | 300.000 +- 0.000 | 100,096 | 8 | 9 |" in table
    assert "| PPO, stopped by KL | SB3 |" in markdown([lines[1] | {"method": "ppo-kl"}])
    assert "| TRPO | SB3 |" in table and "| 16 | 9 |" in table
    assert speeds(list(done.values())).splitlines()[2:] == ["| CartPole-v1 |  |  | 2.00 |  |"]
