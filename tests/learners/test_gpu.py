from pathlib import Path

import pytest
import torch

from cluster.experiment import Topology
from recipes.ppo import ppo
from tests.cluster.worlds import world_of


@pytest.mark.gpu
def test_a_learner_on_the_gpu_finds_what_actors_on_the_processor_recorded(tmp_path: Path) -> None:
    topology = Topology(actors=1, learners=1, gpus_per_learner=1, local=True)
    with world_of(ppo(rows=16, epochs=2, topology=topology), tmp_path) as world:
        metrics = [world.advance().metrics for _ in range(3)]
        assert all(step["train/first_ratio_error"] < 1e-4 for step in metrics)
        assert all(parameter.device.type == "cuda" for parameter in world.learner.model.parameters())
    assert torch.cuda.max_memory_allocated() > 0
