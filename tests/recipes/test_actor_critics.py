"""The recipes of actor-critics without a ratio's clip: A2C, and V-trace for actors that run ahead."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.a2c import a2c
from recipes.impala import impala
from tests.recipes.runs import HERE, advances, mean_return


def test_a2c_learns_from_its_own_policys_rows(tmp_path: Path) -> None:
    for advance in advances(a2c(envs=4, rows=8, topology=HERE), tmp_path, steps=4, sharpen=100.0):
        assert all(math.isfinite(value) for value in advance.metrics.values())
        assert advance.metrics["train/first_ratio_error"] < 1e-5
        assert advance.metrics["train/minibatches_done"] == 1


@pytest.mark.parametrize("squashed", [False, True])
def test_continuous_actions_have_the_density_that_they_were_drawn_with(squashed: bool, tmp_path: Path) -> None:
    experiment = a2c("Pendulum-v1", envs=4, rows=8, squashed=squashed, normalise=True, topology=HERE)
    for advance in advances(experiment, tmp_path, steps=4, sharpen=100.0):
        assert advance.metrics["train/first_ratio_error"] < 1e-4


def test_impala_without_lag_has_ratios_of_one(tmp_path: Path) -> None:
    for advance in advances(impala(envs=4, rows=8, topology=HERE), tmp_path, steps=3, sharpen=100.0):
        assert advance.metrics["train/first_ratio_error"] < 1e-5
        assert advance.metrics["train/approx_kl"] < 1e-5


def test_impala_takes_rows_however_old(tmp_path: Path) -> None:
    """With several actors the slowest one's rows are older than `max_version_lag` says of any single one."""
    experiment = impala(topology=replace(HERE, actors=2, max_version_lag=1))
    assert experiment.tables["fresh"].max_lag is None
    advances(experiment, tmp_path, steps=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", [a2c, impala])
def test_cartpole_is_solved(recipe, tmp_path: Path) -> None:
    assert mean_return(recipe(topology=HERE), tmp_path) > 475
