"""Recurrent PPO as the recipe puts it together, with either core, from recorded states and burnt-in ones."""

import math
from pathlib import Path

import pytest

from recipes.cpc_ppo import cpc_ppo
from recipes.ppo import ppo
from recipes.recurrent_ppo import recurrent_ppo
from tests.recipes.runs import HERE, advances, mean_return


@pytest.mark.parametrize("core", ["gru", "transformer"])
def test_the_first_minibatch_finds_the_policy_that_acted(core: str, tmp_path: Path) -> None:
    experiment = recurrent_ppo(envs=4, rows=16, core=core, hidden=16, memory=5, minibatches=2, topology=HERE)
    for advance in advances(experiment, tmp_path, steps=4, sharpen=100.0):
        assert advance.metrics["train/first_ratio_error"] < 1e-4


@pytest.mark.parametrize("core", ["gru", "transformer"])
def test_burnt_in_states_are_those_of_the_present_weights(core: str, tmp_path: Path) -> None:
    """Where episodes go on from the block before, which older weights decided."""
    options = {"envs": 4, "rows": 16, "core": core, "hidden": 16, "memory": 5, "lr": 1e-2, "minibatches": 2}
    runs = {}
    for rows in (0, 8):
        experiment = recurrent_ppo(burn_in=rows, topology=HERE, **options)
        runs[rows] = advances(experiment, tmp_path / str(rows), steps=4, sharpen=30.0)
    errors = {rows: [advance.metrics["train/first_ratio_error"] for advance in run] for rows, run in runs.items()}
    assert max(errors[0]) < 1e-4
    assert errors[8][0] < 1e-4, "in the first block nothing comes before, and the weights are still the same"
    assert max(errors[8]) > 1e-4
    assert all(math.isfinite(value) for advance in runs[8] for value in advance.metrics.values())


def test_a_transformer_also_keeps_frames(tmp_path: Path) -> None:
    experiment = cpc_ppo(envs=8, rows=20, epochs=1, minibatches=2, core="transformer", hidden=16, topology=HERE)
    for advance in advances(experiment, tmp_path, steps=2, sharpen=100.0):
        assert advance.metrics["train/first_ratio_error"] < 1e-4


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("core", ["gru", "transformer"])
def test_a_memory_keeps_the_pole_up_without_seeing_velocities(core: str, tmp_path: Path) -> None:
    forgetful = ppo("actors.envs:CartPoleNoVelocity-v0", steps=50_000, topology=HERE)
    assert mean_return(forgetful, tmp_path / "forgetful") < 100
    assert mean_return(recurrent_ppo(core=core, topology=HERE), tmp_path / core) > 300
