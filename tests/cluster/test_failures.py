"""A run whose numbers overflow: it stops before it learns from them, and keeps what they came from."""

import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from learners import checkpoint
from learners.objective import Bound
from learners.objectives.ppo import PPO
from tests.cluster.commands import Contrail


class Generous(CartPoleEnv):
    """Pays, once, a reward that is a number in float32, and whose square is none."""

    steps = 0

    def step(self, action):
        Generous.steps += 1
        seen, reward, *rest = super().step(action)
        return seen, (3e38 if Generous.steps == 200 else reward), *rest


gymnasium.register("GenerousCartPole-v0", entry_point=Generous, max_episode_steps=500)


@pytest.fixture
def generous() -> str:
    Generous.steps = 0
    return "tests.cluster.test_failures:GenerousCartPole-v0"


def test_a_minibatch_that_overflows_is_kept_in_the_runs_folder(generous: str, contrail: Contrail) -> None:
    outcome = contrail.train("ppo", "--env", generous)
    run = contrail.runs / "run"
    assert outcome.code == 1
    version = int(read_metrics(run)[-1]["train/version"])
    folder = run / "failures" / f"version-{version}-learner-0"
    for part in ("train/value_loss", 'of PPO on table "fresh"', "first parameter with a bad gradient: ",
                 str(folder.resolve())):  # fmt: skip
        assert part in outcome.sentence
    tensors, values = checkpoint.load(folder)
    assert values["message"] in outcome.sentence
    assert tensors["batch/fresh/reward"].max() > 1e38
    assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("model/"))
    assert all(math.isfinite(row["train/value_loss"]) for row in read_metrics(run) if "train/value_loss" in row)
    assert not RunFolder(run).checkpoints(), "a step that failed half-way is not saved"


def test_a_reward_that_is_no_number_is_the_environments_failure(contrail: Contrail, monkeypatch) -> None:
    monkeypatch.setattr(Generous, "step", lambda self, action: (np.zeros(4, np.float32), math.nan, False, False, {}))
    outcome = contrail.train("ppo", "--env", "tests.cluster.test_failures:GenerousCartPole-v0")
    assert outcome.code == 2
    assert "actor-0: environment 0 of 4 returned reward nan at step " in outcome.sentence
    assert not Path(contrail.runs / "run" / "failures").exists()


def test_a_metric_out_of_its_bounds_ends_the_run(contrail: Contrail, monkeypatch) -> None:
    bounds = {"value_loss": Bound(most=-1.0, otherwise="half a square is never negative")}
    monkeypatch.setattr(PPO, "bounds", lambda self, model: bounds)
    outcome = contrail.train("ppo")
    assert outcome.code == 1
    assert "contrail: train/value_loss is " in outcome.sentence
    assert outcome.sentence.endswith(", wanted -inf to -1: half a square is never negative")
    assert not RunFolder(contrail.runs / "run").checkpoints(), "what was learned is not to be trusted"
