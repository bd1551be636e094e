import math
from pathlib import Path

import pytest

from cluster.experiment import Topology
from recipes.curl_ppo import curl_ppo
from tests.cluster.worlds import world_of

pytest.importorskip("ale_py")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("contrast", "augment"), [(0.05, False), (0.0, False), (0.0, True)])
def test_a_few_steps_of_breakout(precision: str, contrast: float, augment: bool, tmp_path: Path) -> None:
    experiment = curl_ppo(
        envs=4,
        rows=16,
        epochs=2,
        minibatches=2,
        precision=precision,
        contrast=contrast,
        augment_policy=augment,
        topology=Topology(actors=2, learners=1, local=True),
    )
    with world_of(experiment, tmp_path) as world:
        steps = [world.advance().metrics for _ in range(3)]
    for metrics in steps:
        assert all(math.isfinite(value) for value in metrics.values())
        assert ("contrast/accuracy" in metrics) == (contrast > 0)
        # In bf16, too: actor and learner round the same weights and frames in the same way.
        assert augment or metrics["train/first_ratio_error"] < 1e-4
