"""A learner's wall time: all of it belongs to a stage; and how old the rows are that it learns from."""

import time
from time import perf_counter

import numpy as np
import pytest
import torch

from learners.gradient import Gradient
from learners.group import Group
from learners.learner import STAGES, _staleness_of
from learners.objectives.ppo import PPO
from tests.learners.pair import Pair
from tests.learners.reading import RandomRows, learner_of, model_of
from tests.learners.small import small_model

NAP = 0.05


class SlowRows(RandomRows):
    """Rows that one waits for, whose gathering takes a while, and weights that take longer to be published."""

    def read(self, step: int):
        time.sleep(2 * NAP)
        answered = perf_counter()
        found = super().read(step)
        time.sleep(NAP)
        self.moments = {"wait": answered, "gather": perf_counter()}
        return found

    def publish(self, version, weights) -> None:
        time.sleep(3 * NAP)
        super().publish(version, weights)


class SlowPPO(PPO):
    """Whose losses take a while."""

    def terms(self, model, out, batch):
        time.sleep(4 * NAP)
        return super().terms(model, out, batch)


def test_stages_add_up_to_the_wall_time_of_steps() -> None:
    model, steps = model_of(images=False), 3
    learner = learner_of(model, Gradient({"fresh": SlowPPO()}, epochs=1, minibatches=1), rows=SlowRows(images=False))
    started, before, found = perf_counter(), time.time(), []
    for _ in range(steps):
        found.append(learner.step())
        ended = perf_counter()
        time.sleep(NAP)  # until the driver asks for another
    seconds = {stage: sum(metrics[f"time/learner_{stage}"] for metrics in found) for stage in STAGES}
    assert sum(seconds.values()) == pytest.approx(ended - started, rel=0.02)
    slept = {"wait": 2, "gather": 1, "update": 4, "publish": 3, "between": 2 / 3}
    assert all(naps * steps * NAP <= seconds[stage] for stage, naps in slept.items())
    assert seconds["reduce"] == 0 and seconds["copy"] < NAP * steps
    assert before < found[0]["facts/published"] < found[1]["facts/published"] < time.time()


def late(group: Group) -> float:
    """What one of two learners counts where the other comes late to a sum, and to that of a gradient."""
    if group.rank == 1:
        time.sleep(4 * NAP)
    group.sum(torch.ones(3))
    model = small_model()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    group.sum_gradients(model)  # the first sum of gradients finds a place in shared memory for all others
    group.clock.take()
    if group.rank == 1:
        time.sleep(4 * NAP)
    group.sum_gradients(model)
    joined = group.rows(torch.ones(2 + group.rank))
    if group.rank == 1:
        time.sleep(2 * NAP)
    own = torch.ones(2 + group.rank, requires_grad=True)
    joined(own).sum().backward()
    return group.clock.take()


def test_sums_count_the_time_that_one_waits_for_the_slowest(pair: Pair) -> None:
    first, second = pair(late)
    assert first >= 6 * NAP and first - second > 3 * NAP


def test_one_learner_sums_nothing() -> None:
    group = Group()
    group.sum(torch.ones(3))
    assert group.clock.take() == 0.0


@pytest.mark.parametrize(
    ("lag", "p50", "p99"), [([3], 3.0, 3.0), ([0] * 98 + [5] * 2, 0.0, 5.0), ([*range(100, 0, -1)], 50.0, 99.0)]
)
def test_percentiles_are_versions_that_rows_have(lag: list[int], p50: float, p99: float) -> None:
    found = _staleness_of(np.array(lag))
    assert (found["staleness/p50"], found["staleness/p99"]) == (p50, p99)
    assert found["staleness/max"] == max(lag) and found["staleness/mean"] == pytest.approx(sum(lag) / len(lag))
