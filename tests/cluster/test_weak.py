"""The benchmark of waiting environments: its figures by hand, and that the environments wait."""

import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from benchmarks.dozing import MILLISECONDS, dozing
from benchmarks.timed import family
from benchmarks.weak import measurement, memory
from benchmarks.weak_table import Weak, efficiency, markdown, saturation

STAGES = {"wait": 0.1, "room": 0.0, "inference": 0.2, "environment": 1.6, "write": 0.1, "between": 0.0}


def line(actors: int, step: float, milliseconds: int = 50, **values: float) -> Weak:
    stages = {f"time/actor_{stage}": seconds for stage, seconds in STAGES.items()}
    stages |= {"time/learner_wait": step - 0.5, "time/learner_update": 0.5}
    taken = {"start": 9.0, "actor": 200.0, "actor_alone": 190.0, "actor_resident": 340.0, "all": 2048.0}
    limit = "the learners limit it (71% of ...): more"
    return Weak(actors, milliseconds, 32, 100.0, [100.0], taken, stages | values, limit)


def test_efficiency_is_beside_the_fewest_actors_and_the_rest_beside_sleeping_alone() -> None:
    lines = [line(2, 1.8), line(8, 2.4)]
    assert efficiency(lines, lines[1]) == pytest.approx(0.75)
    assert lines[0].asleep == pytest.approx(1.6 / 1.8) and lines[1].asleep == pytest.approx(1.6 / 2.4)
    assert lines[0].full["environment"] == pytest.approx(0.8)
    told = markdown(lines, [], {8: 125.0})
    assert "| 8 | 2,400 ms | 106.7 | **75.0%** | 66.7% | 100.0 | 125.0 | +25.0% |" in told
    assert "| 2 | 1,800 ms | 35.6 | 100.0% |" in told and "| - | - |" in told
    assert "| 8 | 50 | 9.0 s | 200 MiB | 190 MiB | 340 MiB | 2.0 GiB |" in told


def test_what_is_full_first_is_what_is_used_most_where_sleeping_is_no_longer_all() -> None:
    used = {"bottleneck/cores_busy": 0.5, "bottleneck/learners_busy": 0.95, "bottleneck/queue": 1.5}
    lines = [line(16, 0.64, 20), line(16, 0.64, 10, **used), line(16, 0.64, 5, **used)]
    assert saturation(lines).startswith("16 actors of 10 ms a step make 50% of what sleeping allows; first the learner")
    assert saturation(lines[:1]) == "nothing is full"
    assert "| 50% | 95% | 0% | 80% | 5% | 0% | 0% | 1.50 | the learners limit it (71% of ...) |" in markdown(
        [], lines, {}
    )


def test_environments_wait_as_long_as_they_are_called_in_steps_and_resets() -> None:
    environment: Any = gymnasium.make(dozing(20))
    for call in (lambda: environment.reset(seed=1), lambda: environment.step(0)):
        began = time.perf_counter()
        call()
        assert time.perf_counter() - began >= 0.02
    environment.close()
    assert 50 in MILLISECONDS and gymnasium.make("benchmarks.dozing:DozingCartPole-v0").spec is not None


def test_it_measures_what_scale_would_with_a_warm_up_of_some_seconds(tmp_path: Path) -> None:
    scale = measurement(tmp_path / "50ms", 50, (1, 2), 32, 20.0, 1)
    assert [(point.actors, point.envs) for point in scale.plan.points] == [(1, 1), (2, 2)]
    assert scale.options.warm_up == 3 and measurement(tmp_path / "2ms", 2, (2,), 32, 20.0, 1).options.warm_up == 78


def test_memory_of_a_process_is_told_with_those_that_come_of_it() -> None:
    found = memory(os.getpid())
    assert 0 < found["Private"] <= found["Pss"] <= found["Rss"]
    assert memory(2**22 + 1) == {} and family(os.getpid())[0] == os.getpid()
    assert os.getpid() in family(os.getppid())
