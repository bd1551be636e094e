"""TRPO and PPO with a KL target as the recipes put them together, on environments."""

import math
from pathlib import Path

import pytest
import torch

from cluster.experiment import Experiment, Topology
from learners.trust_region import SLACK
from recipes.curl_trpo import curl_trpo
from recipes.ppo import ppo
from recipes.trpo import trpo
from tests.cluster.worlds import weights_after, world_of

HERE = Topology(actors=1, learners=1, gpus_per_learner=0, local=True)


def metrics_of(experiment: Experiment, folder: Path, steps: int = 4) -> list[dict[str, float]]:
    with world_of(experiment, folder) as world:
        metrics = [world.advance().metrics for _ in range(steps)]
    assert all(math.isfinite(value) for step in metrics for value in step.values())
    return metrics


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_trpo_steps_within_its_bound(env: str, tmp_path: Path) -> None:
    for step in metrics_of(trpo(env, envs=4, rows=32, epochs=2, minibatches=2, topology=HERE), tmp_path):
        assert step["train/kl_before"] < 1e-6, "the learner does not find the policy that acted"
        assert step["train/step_accepted"] == 1 and step["train/surrogate_gain"] >= 0
        assert 1e-4 < step["train/kl"] <= SLACK * 0.01
        assert step["train/value_loss"] > 0


@pytest.mark.parametrize("method", ["curl", "cpc"])
def test_the_bound_holds_after_a_contrastive_step_of_the_encoder(method: str, tmp_path: Path) -> None:
    experiment = curl_trpo(envs=8, rows=16, lr=3e-3, max_kl=1e-3, method=method, topology=HERE)
    steps = metrics_of(experiment, tmp_path, 6)
    assert max(step["train/kl_before"] for step in steps) > 1e-5, "the encoder should have moved the policy"
    assert all(step["train/kl"] <= SLACK * 1e-3 for step in steps)
    assert any(step["train/step_accepted"] for step in steps)
    assert all("contrast/accuracy" in step for step in steps)
    plain = curl_trpo(envs=8, rows=16, contrast=0.0, topology=HERE)
    (step,) = metrics_of(plain, tmp_path / "plain", 1)
    assert step["train/kl_before"] < 1e-6 and not any(tag.startswith("contrast/") for tag in step)


def test_ppo_with_a_target_tells_its_kl_and_coefficient(tmp_path: Path) -> None:
    steps = metrics_of(ppo(rows=16, epochs=2, kl_target=1e-6, topology=HERE), tmp_path)
    assert [step["train/kl_coefficient"] for step in steps] == [1, 2, 4, 8]
    assert all(step["train/kl"] > 1e-6 and step["train/clip_fraction"] == 0 for step in steps)


def test_a_resumed_run_keeps_the_coefficient(tmp_path: Path) -> None:
    experiment = ppo(rows=16, epochs=2, kl_target=1e-6, topology=HERE)
    saved = weights_after(experiment, tmp_path, 2)
    assert float(saved["model/heads.kl.value"]) == 4
    with world_of(experiment, tmp_path, resume=tmp_path / "checkpoint") as world:
        assert [world.advance().metrics["train/kl_coefficient"] for _ in range(2)] == [4, 8]


def test_a_resumed_trpo_starts_from_the_policy_that_acts(tmp_path: Path) -> None:
    experiment = curl_trpo(envs=8, rows=16, topology=HERE)
    weights_after(experiment, tmp_path, 1)
    with world_of(experiment, tmp_path, resume=tmp_path / "checkpoint") as world:
        engine = world.learner.engines[1]
        assert all(torch.equal(a, b) for a, b in zip(engine.published, engine.parameters, strict=True))
        assert world.advance().metrics["train/kl"] <= SLACK * 0.01


def solved(experiment: Experiment, folder: Path) -> bool:
    """Whether a run comes to a mean return of 475 over its last 100 episodes."""
    totals: list[float] = []
    with world_of(experiment, folder) as world:
        steps = 0
        while steps < experiment.steps:
            advance = world.advance()
            steps = advance.steps
            totals += [episode.total for report in advance.reports for episode in report.episodes]
            if len(totals) >= 100 and sum(totals[-100:]) >= 47_500:
                return True
    return False


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cartpole_is_solved(seed: int, tmp_path: Path) -> None:
    assert solved(trpo(seed=seed, topology=HERE), tmp_path / "trpo")
    assert solved(ppo(seed=seed, kl_target=0.01, topology=HERE), tmp_path / "ppo")
