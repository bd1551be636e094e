"""The contrastive control table: every arm is an experiment, and what is said of several seeds is right."""

from pathlib import Path

import numpy as np
import pytest

from actors.environments import Environment
from benchmarks.contrast import COMPARED, TABLES, Run, control
from benchmarks.contrast_arms import ARMS, TABLE, TASKS
from benchmarks.contrast_table import interval, markdown
from benchmarks.lines import finished

HOUSE = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_an_experiment_with_the_same_steps_batches_and_clipping(task: str, arm: str) -> None:
    plain, other = control(task=task).checked(), control(task=task, arm=arm).checked()
    assert (other.steps, other.tables["fresh"], other.environment) == (
        plain.steps,
        plain.tables["fresh"],
        plain.environment,
    )
    first, gradient = plain.updates[0], other.updates[0]
    assert (gradient.max_gradient_norm, gradient.minibatches) == (first.max_gradient_norm, first.minibatches)


def test_shuffled_arms_differ_in_nothing_else() -> None:
    for name in ("curl", "cpc"):
        weights = [dict(TABLE[arm].objectives)[name] for arm in (name, f"{name}-shuffled")]
        (weight, honest), (other_weight, shuffled) = weights
        assert weight == other_weight
        assert vars(honest) | {"shuffled": True} == vars(shuffled)


def test_tables_hold_every_arm_with_every_seed_once() -> None:
    assert len(set(TABLES["jitter"])) == 5 * len(TABLE) == len(TABLES["jitter"])
    assert all(run.steps == TASKS[run.task].steps for run in TABLES["sweep"])
    for task in set(TASKS) - {"jitter"}:
        assert {run.task for run in TABLES[task]} == {task}
        assert len(set(TABLES[task])) == 5 * len(COMPARED) == len(TABLES[task])


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_what_its_environment_is_if_nothing_is_said(task: str) -> None:
    on = TASKS[task]
    told, plain = (Environment(on.id, keywords).make(2) for keywords in ({"static": on.static}, {}))
    np.testing.assert_array_equal(told.reset([1, 2])["observation"], plain.reset([1, 2])["observation"])


def test_a_line_is_the_result_of_a_run_of_its_table() -> None:
    done = finished(HOUSE / "docs/results/contrast", Run)
    tables = {run for runs in TABLES.values() for run in runs}
    assert len(tables & set(done)) > 50
    assert {run.task for run in done} <= set(TASKS)


def test_an_interval_is_student_s() -> None:
    # Mean 3, standard deviation 1.581, over the root of 5 .707; times 2.776.
    assert interval([1.0, 2.0, 3.0, 4.0, 5.0]) == "3.000 +- 1.963"
    assert interval([0.25]) == "0.250"


def test_a_row_for_each_arm() -> None:
    line = {"task": "jitter", "arm": "cpc", "static": 80, "steps": 10, "env_steps": 12, "training": 0.25}
    lines = [
        line | {"seed": s, "evaluation": e, "cpu_seconds": 3.0, "wall_seconds": 4.0} for s, e in ((1, 0.5), (2, 0.6))
    ]
    head, _, row = markdown(lines, {"cpc": "PPO, CPC"}).splitlines()
    assert head.count("|") == row.count("|")
    assert row.startswith("| PPO, CPC | 80 | 0.550 +- 0.635 | 0.50, 0.60 | 0.250 +- 0.000 | 12 | 3 | 4 |")


def test_runs_of_several_tasks_are_kept_apart_and_named() -> None:
    line = {"arm": "cpc", "static": 80, "steps": 10, "env_steps": 12, "training": 0.25, "seed": 1}
    line |= {"cpu_seconds": 3.0, "wall_seconds": 4.0}
    lines = [line | {"task": task, "evaluation": value} for task, value in (("jitter", 0.5), ("lock", 0.6))]
    head, rule, *rows = markdown(lines, {"cpc": "PPO, CPC"}).splitlines()
    assert head.startswith("| task | arm |")
    assert rule.count("|") == head.count("|")
    assert [row[:42] for row in rows] == [
        "| jitter | PPO, CPC | 80 | 0.500 | 0.50 | ",
        "| lock | PPO, CPC | 80 | 0.600 | 0.60 | 0.",
    ]
