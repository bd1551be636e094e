from dataclasses import replace
from pathlib import Path

import pytest

from cluster.experiment import Experiment, Topology
from cluster.world import Local
from recipes.ppo import ppo
from tests.cluster.worlds import same, weights_after, world_of


def small(**flags) -> Experiment:
    flags = {"rows": 16, "epochs": 2, "minibatches": 2, "topology": Topology(actors=2, learners=1, local=True)} | flags
    return ppo(**flags)


def test_the_first_minibatch_finds_the_ratio_at_one(tmp_path: Path) -> None:
    with world_of(small(), tmp_path) as world:
        for _ in range(3):
            assert world.advance().metrics["train/first_ratio_error"] < 1e-4


def test_one_seed_gives_one_outcome_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (
        weights_after(small(seed=seed), tmp_path / name, 3) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert same(first, again) and not same(first, other)


def test_two_shards_give_the_weights_of_one(tmp_path: Path) -> None:
    two = small(topology=Topology(actors=2, learners=1, shards=2, local=True))
    assert same(weights_after(small(), tmp_path / "a", 2), weights_after(two, tmp_path / "b", 2))


def test_a_resumed_learner_continues_with_weights_optimiser_and_counts(tmp_path: Path) -> None:
    experiment = small()
    weights_after(experiment, tmp_path, 2)
    with world_of(experiment, tmp_path, resume=tmp_path / "checkpoint") as world:
        assert isinstance(world, Local)
        assert world.learner.version == 2
        before = world.learner.steps
        advance = world.advance()
        assert advance.version == 3 and before < advance.steps <= before + 8 * 16
        assert [report.block for report in advance.reports] == [2, 2]
        state = world.learner.engines[0].state()
        assert {int(value) for name, value in state.items() if name.endswith("step")} == {12}


def test_rows_and_steps_balance(tmp_path: Path) -> None:
    with world_of(small(), tmp_path) as world:
        advances = [world.advance() for _ in range(4)]
    assert sum(report.steps for advance in advances for report in advance.reports) == advances[-1].steps
    assert advances[-1].metrics["replay/rows_committed"] >= 4 * 8 * 16


@pytest.mark.parametrize("env", ["Pendulum-v1", "CliffWalking-v1"])
def test_other_spaces_train_too(env: str, tmp_path: Path) -> None:
    experiment = small(env=env, normalise=env == "Pendulum-v1")
    with world_of(experiment, tmp_path) as world:
        metrics = [world.advance().metrics for _ in range(2)][-1]
    assert metrics["train/first_ratio_error"] < 1e-4


def test_lag_one_in_turns_is_as_fresh_as_lag_zero(tmp_path: Path) -> None:
    lagging = small(topology=Topology(actors=2, learners=1, local=True, max_version_lag=1))
    assert same(weights_after(small(), tmp_path / "a", 3), weights_after(lagging, tmp_path / "b", 3))
    assert replace(lagging).topology.max_version_lag == 1
