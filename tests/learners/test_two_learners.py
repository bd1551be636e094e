"""What two learners, each in a process of its own, do when only one of them has seen something."""

import torch

from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.group import Group
from learners.not_finite import NotFinite
from learners.objectives.ppo import PPO
from tests.learners.pair import Pair, part_of
from tests.learners.small import random_batch, small_model


def told(group: Group) -> str:
    """Why a learner stops where the rewards of learner 1 are no numbers."""
    batch = random_batch(4, 6, seed=group.rank)
    if group.rank == 1:
        batch["reward"][batch["mask"] > 0] = torch.nan
    engine = Gradient({"fresh": PPO(Advantages(normalise=False))}, minibatches=1).start(small_model(), group)
    try:
        engine.step({"fresh": batch}, progress=0.0)
    except NotFinite as error:
        return str(error)
    return ""


def test_all_learners_stop_and_say_whose_rows_were_no_numbers(pair: Pair) -> None:
    first, second = pair(told)
    assert first == second
    assert "On learner 1: columns fresh/reward" in first and "On learner 0" not in first


def moved(group: Group, accumulate: int) -> list[torch.Tensor]:
    model = small_model()
    update = Gradient({"fresh": PPO()}, lr=0.01, epochs=2, minibatches=1, accumulate=accumulate)
    update.start(model, group).step({"fresh": part_of(random_batch(6, 9), group)}, progress=0.0)
    return [parameter.detach() for parameter in model.parameters()]


def test_parts_of_a_minibatch_do_not_show_between_learners(pair: Pair) -> None:
    (one, _), (three, _) = (pair(moved, accumulate) for accumulate in (1, 3))
    for a, b in zip(one, three, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
