"""PPO + CPC as the recipe puts them together, on a recurrent core that starts from recorded states."""

import math
from pathlib import Path

import pytest
import torch

from cluster.experiment import Experiment, Spaces, Topology
from cluster.world import Advance, Local
from learners.objectives.ppo import PPO
from recipes.cpc_ppo import cpc_ppo
from replay.opening import Places

HERE = Topology(actors=1, learners=1, gpus_per_learner=0, local=True)


def small(**changes) -> Experiment:
    return cpc_ppo(envs=8, rows=20, epochs=2, minibatches=2, topology=HERE, **changes).checked()


def advances(experiment: Experiment, folder: Path, *, steps: int, sharpen: float = 1.0) -> list[Advance]:
    """Learner steps in this process, with the first policy's logits multiplied by `sharpen`."""
    places = Places(live=folder / "live", kept=folder / "kept")
    with Local(experiment, Spaces.of(experiment.environment), places=places) as world:
        with torch.no_grad():
            world.learner.model.policy.linear.weight.mul_(sharpen)
        world.learner.announce()
        return [world.advance() for _ in range(steps)]


def contrastive(metrics: dict[str, float]) -> set[str]:
    return {tag for tag in metrics if tag.startswith("contrast/")}


def test_a_few_steps_are_finite_and_tell_of_the_contrast(tmp_path: Path) -> None:
    metrics = [advance.metrics for advance in advances(small(ahead=2), tmp_path, steps=3)]
    for step in metrics:
        assert all(math.isfinite(value) for value in step.values())
        named = {f"contrast/{name}_{k}" for name in ("loss", "accuracy", "information") for k in (1, 2)}
        means = {f"contrast/{name}" for name in ("loss", "accuracy", "information", "effective_rank", "embedding_std")}
        assert contrastive(step) == named | means | {"contrast/positive_similarity", "contrast/negative_similarity"}
    # Before anything is learned, a row's future is one of the minibatch's decided rows, at most 4 windows of 20.
    assert metrics[0]["contrast/loss_1"] == pytest.approx(math.log(4 * 20), abs=0.2)


# A policy that is far from uniform, or any core state would give nearly the same probabilities.
def test_the_first_minibatch_finds_the_policy_that_acted(tmp_path: Path) -> None:
    for advance in advances(small(), tmp_path, steps=4, sharpen=100.0):
        assert advance.metrics["train/first_ratio_error"] < 1e-4


def test_without_the_contrast_it_is_plain_recurrent_ppo(tmp_path: Path) -> None:
    experiment = small(contrast=0.0)
    (advance,) = advances(experiment, tmp_path, steps=1)
    assert contrastive(advance.metrics) == set()
    assert isinstance(experiment.updates[0].objectives["fresh"], PPO)


@pytest.mark.parametrize("flags", [{"method": "tcl"}, {"momentum": 0.95}, {"hidden": 0}])
def test_variants(flags: dict, tmp_path: Path) -> None:
    for advance in advances(small(**flags), tmp_path, steps=2):
        assert all(math.isfinite(value) for value in advance.metrics.values())
        assert advance.metrics["train/first_ratio_error"] < 1e-4
        assert advance.metrics["contrast/loss"] > 0


def test_history_is_contrasted_beside_the_fresh_windows(tmp_path: Path) -> None:
    experiment = small(history=10_000, momentum=0.9)
    metrics = [advance.metrics for advance in advances(experiment, tmp_path, steps=4)]
    assert {"contrast/loss_3", "history/loss_3", "train/value_loss"} <= metrics[-1].keys()
    assert metrics[-1]["history/loss"] != metrics[-1]["contrast/loss"]
    assert metrics[-1]["train/first_ratio_error"] < 1e-4


def mean_return(experiment: Experiment, folder: Path) -> float:
    """Of the last tenth of a run's episodes."""
    totals: list[float] = []
    places = Places(live=folder / "live", kept=folder / "kept")
    with Local(experiment, Spaces.of(experiment.environment), places=places) as world:
        steps = 0
        while steps < experiment.steps:
            advance = world.advance()
            steps = advance.steps
            totals += [episode.total for report in advance.reports for episode in report.episodes]
    last = totals[-len(totals) // 10 :]
    return sum(last) / len(last)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_contrast_makes_it_learn_what_reward_alone_does_not(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    assert mean_return(cpc_ppo(seed=11, topology=HERE).checked(), tmp_path / "with") > 0.6
    assert mean_return(cpc_ppo(seed=11, contrast=0.0, topology=HERE).checked(), tmp_path / "without") < 0.3
