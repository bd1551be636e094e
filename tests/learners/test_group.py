import os
from pathlib import Path

import pytest
import torch

from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.group import Group
from learners.objectives.ppo import PPO
from learners.update import Normalise
from tests.learners.pair import Pair, part_of
from tests.learners.small import random_batch, small_model


def trained(group: Group, batch: dict) -> dict[str, torch.Tensor]:
    """Parameters and statistics after two learner steps on one minibatch each."""
    model = small_model(seed=group.rank + 1, normalise=True)
    group.broadcast(model)
    objective = PPO(Advantages(scale_reward=True))
    engines = [
        Gradient({"fresh": objective}, lr=0.01, epochs=3, minibatches=1).start(model, group),
        Normalise("fresh").start(model, group),
    ]
    for _ in range(2):
        for engine in engines:
            engine.step({"fresh": batch}, progress=0.0)
    return model.state_dict()


def trained_on_part(group: Group, through_memory: bool) -> tuple[int, dict[str, torch.Tensor]]:
    """The process, and what came of its part of the batch."""
    assert group.shares_memory
    group.shares_memory = through_memory
    return os.getpid(), trained(group, part_of(random_batch(6, 9), group))


def thread_names(process: int) -> list[str]:
    return [name.read_text().strip() for name in Path(f"/proc/{process}/task").glob("*/comm")]


@pytest.mark.parametrize("through_memory", [True, False])
def test_two_learners_on_uneven_parts_equal_one_on_the_whole(pair: Pair, through_memory: bool) -> None:
    (process, first), (other, second) = pair(trained_on_part, through_memory)
    assert not list(Path("/dev/shm").glob(f"contrail-{process}-sum-*")), "the shared file outlived its use"
    # One that is left when the interpreter ends may abort the process.
    names = [*thread_names(process), *thread_names(other)]
    assert len(names) >= 2 and not any("gloo" in name for name in names), "the group's threads outlived it"
    whole = trained(Group(), random_batch(6, 9))
    for name, tensor in whole.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_a_single_learner_needs_no_group() -> None:
    tensor = torch.ones(3)
    assert Group().sum(tensor) is tensor
