"""Masked actions through a whole run: environment, policy, store, learner, evaluation."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from actors.environments import Environment
from actors.evaluator import evaluate
from cluster.experiment import Spaces
from learners.objective import MethodError
from recipes.a2c import a2c
from recipes.ppo import ppo
from tests.recipes.runs import HERE, advances

RESTLESS = "tests.recipes.masked:Restless-v0"


@pytest.mark.parametrize("recipe", [ppo, a2c])
def test_no_forbidden_action_is_ever_taken(recipe, tmp_path: Path) -> None:
    for advance in advances(recipe(RESTLESS, envs=4, rows=40, topology=HERE), tmp_path, steps=5, sharpen=300.0):
        assert all(math.isfinite(value) for value in advance.metrics.values())
        assert advance.metrics["train/first_ratio_error"] < 1e-4


def test_nor_in_a_greedy_evaluation() -> None:
    experiment = ppo(RESTLESS, topology=HERE)
    policy = Spaces.of(experiment.environment).policy(experiment)
    episodes = evaluate(policy, experiment.environment, episodes=8, seed=1, count=4, max_steps=20)
    assert [episode.length for episode in episodes] == [5] * 8


def test_a_decision_that_nothing_was_allowed_for_stops_the_run(tmp_path: Path) -> None:
    stuck = replace(ppo(RESTLESS, envs=4, rows=40, topology=HERE), environment=Environment(RESTLESS, {"stuck": 2}))
    with pytest.raises(MethodError, match="allows no action in step 2 of episode"):
        advances(stuck, tmp_path, steps=1)
