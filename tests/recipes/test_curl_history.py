"""PPO + CURL as the recipe puts them together on small frames and on vectors: fresh rows, history, or both."""

import math
from pathlib import Path
from typing import Any

import pytest

from cluster.experiment import Topology
from recipes.curl_ppo import curl_ppo
from tests.cluster.worlds import world_of

HERE = Topology(actors=1, learners=1, gpus_per_learner=0, local=True)
SMALL = {"env": "actors.envs:JitterCode-v0", "encoder": "small"}
VECTOR = {"env": "CartPole-v1", "encoder": "mlp"}


def metrics_of(folder: Path, **flags: Any) -> list[dict[str, float]]:
    experiment = curl_ppo(
        **{"envs": 8, "rows": 16, "epochs": 2, "minibatches": 2, "precision": "fp32", "topology": HERE} | flags
    )
    with world_of(experiment, folder) as world:
        return [world.advance().metrics for _ in range(4)]


@pytest.mark.parametrize("task", [SMALL, VECTOR])
def test_fresh_rows(task: dict[str, Any], tmp_path: Path) -> None:
    for metrics in metrics_of(tmp_path, **task):
        assert all(math.isfinite(value) for value in metrics.values())
        assert 0 < metrics["contrast/accuracy"] <= 1
        assert metrics["train/first_ratio_error"] < 1e-4, "PPO sees what it acted on"
        assert not any(tag.startswith("history/") for tag in metrics)


@pytest.mark.parametrize("exponent", [0.0, 0.6])
@pytest.mark.parametrize("fresh", [True, False])
def test_history(exponent: float, fresh: bool, tmp_path: Path) -> None:
    metrics = metrics_of(tmp_path, **SMALL, history=5_000, fresh_contrast=fresh, exponent=exponent)[-1]
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["history/loss"] > 0
    assert ("contrast/loss" in metrics) == fresh
    assert metrics["replay/history/windows"] > 8 * 16, "the past is there, not only the newest block"
    assert metrics["train/first_ratio_error"] < 1e-4


def test_a_contrast_of_no_weight_needs_no_history(tmp_path: Path) -> None:
    metrics = metrics_of(tmp_path, **SMALL, history=5_000, contrast=0.0)[-1]
    assert not any(tag.startswith(("history/", "contrast/")) for tag in metrics)


def test_the_policy_can_see_changed_vectors(tmp_path: Path) -> None:
    changed = metrics_of(tmp_path, **VECTOR, augment_policy=True, noise=1.0)[-1]
    assert changed["train/first_ratio_error"] > 1e-4
