import pytest
import ray

from cluster.calibration import far_seconds, look_seconds, watched
from cluster.embedded import start_ray
from cluster.experiment import Spaces, Topology
from cluster.plan_stages import spread, stage_seconds
from recipes.ppo import ppo


def test_waiting_is_no_part_of_a_block() -> None:
    values = {"time/actor_wait": 1.0, "time/actor_room": 2.0, "time/actor_inference": 3.0, "time/actor_write": 4.0}
    assert stage_seconds(values | {"time/learner_update": 9.0, "time/actor_between": 5.0}, "actor") == 7.0


def test_spread_is_that_of_the_middle() -> None:
    even = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95]
    assert spread(even) == pytest.approx(spread([*even, 50.0]), rel=0.7)
    assert 0.03 < spread(even) < 0.2 and spread([1.0]) == 0.0


def test_a_row_from_elsewhere_takes_time() -> None:
    experiment = ppo(envs=8).checked()
    assert 0 < far_seconds(experiment, Spaces.of(experiment.environment).schema(experiment), blocks=3) < 1e-2


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_is_watched_process_by_process(tmp_path) -> None:
    experiment = ppo(envs=4, rows=16, epochs=2, topology=Topology(actors=2, learners=1)).checked()
    start_ray("")
    try:
        seen = watched(experiment, Spaces.of(experiment.environment), tmp_path, seconds=0.5)
        look = look_seconds(pending=50)
    finally:
        ray.shutdown()
    assert (seen.actors, seen.envs, seen.learners, seen.rows, seen.reductions) == (2, 2, 1, 4 * 17, 2)
    assert 0 < seen.block < seen.step and 0 < seen.update < seen.step
    assert 40 < seen.decisions <= 64
    assert set(seen.cpu) == {"actor", "learner", "shard", "channel", "driver", "ray"}
    assert all(seconds < 2 * seen.step for seconds in seen.cpu.values()) and seen.cpu["driver"] > 0
    assert all(seen.memory[kind] > 1e7 for kind in ("actor", "learner", "shard", "channel", "driver"))
    assert seen.snapshot > 0 and 0 <= look < 1e-2
