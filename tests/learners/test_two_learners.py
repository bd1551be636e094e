"""What two learners, each in a process of its own, do: contrast as one would, and stop together."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.nn.functional import normalize

from learners.advantages import Advantages
from learners.augment import GaussianNoise
from learners.contrast import triplet_margin
from learners.gradient import Gradient
from learners.group import Group
from learners.model import Model
from learners.not_finite import NotFinite
from learners.objective import Batch, Objective, Sum, reduce
from learners.objectives.cpc import Cpc
from learners.objectives.curl import Curl
from learners.objectives.margin import Margin, companions
from learners.objectives.ppo import PPO
from learners.objectives.tcl import tcl
from learners.update import Average
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


CONTRASTS: dict[str, Objective] = {
    "curl": Curl(GaussianNoise(0.0), features=5),
    "cpc": Cpc(steps=2, features=5),
    "cpc and ppo": Sum({"cpc": (0.5, Cpc(steps=2, features=5)), "ppo": (1.0, PPO())}),
    "slow cpc": Cpc(steps=2, features=5, momentum=True),
    "tcl": tcl(2),
    "slow tcl": tcl(2, momentum=True),
}
"""Without chance: what is drawn at random differs from learner to learner."""


def parted(seed: int, *, first_alone: bool) -> Batch:
    """Windows of which the second learner gets the last two, perhaps without a single decision."""
    batch = random_batch(6, 9, seed=seed)
    batch["episode"] += torch.arange(6)[:, None]
    if first_alone:
        batch["mask"][4:] = 0
    return batch


def contrasted(objective: Objective, group: Group, cut: Callable[[Batch], Batch]) -> list[dict]:
    """Metrics and clipped gradients of one learner step each: of whose rows, and in how many parts of a minibatch."""
    found = []
    for first_alone in (False, True):
        for accumulate in (1, 2):
            model = small_model(objective)
            then = tuple(Average(part) for part in objective.slow)
            update = Gradient({"fresh": objective}, epochs=1, minibatches=1, accumulate=accumulate, then=then)
            metrics = update.start(model, group).step({"fresh": cut(parted(7, first_alone=first_alone))}, progress=0.0)
            found.append(metrics | gradients_of(model))
    return found


def contrast(group: Group) -> dict[str, list[dict]]:
    group.shares_memory = False  # which is laid out for one model
    return {name: contrasted(each, group, partial(part_of, group=group)) for name, each in CONTRASTS.items()}


def test_two_learners_contrast_as_one_does(pair: Pair) -> None:
    first, second = pair(contrast)
    for name, objective in CONTRASTS.items():
        wholes = contrasted(objective, Group(), lambda batch: batch)
        for whole, *parts in zip(wholes, first[name], second[name], strict=True):
            assert whole["contrast/accuracy"] > 0 and whole["contrast/embedding_std"] > 0
            for part in parts:
                torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


MARGIN = Margin(features=5, margin=0.7)


def with_margin(group: Group) -> tuple[tuple[torch.Tensor, ...], float, dict[str, torch.Tensor]]:
    model, batch = small_model(MARGIN), part_of(parted(7, first_alone=False), group)
    torch.manual_seed(10 + group.rank)
    drawn = companions(batch, 1, group.rows(batch["mask"].flatten()))
    torch.manual_seed(10 + group.rank)
    with model.among(group):
        loss, means = reduce(MARGIN.terms(model, model(batch), batch), group)
    loss.backward()
    group.sum_gradients(model)
    return drawn, float(means["loss"]), gradients_of(model)


def gradients_of(model: Model) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_negatives_of_a_margin_are_drawn_from_all_learners(pair: Pair) -> None:
    told = pair(with_margin)
    (near, far, counted), (others_near, others_far, others_counted) = (drawn for drawn, *_ in told)
    assert (far[counted] >= len(far)).any() and (others_far[others_counted] < len(far)).any()
    positive, negative = torch.cat([near, others_near + len(near)]), torch.cat([far, others_far])
    model, whole = small_model(MARGIN), parted(7, first_alone=False)
    z = normalize(model.heads["margin"](model(whole).features.flatten(0, 1)), dim=1)
    losses = triplet_margin(z, z[positive], z[negative], MARGIN.margin)
    loss = losses[torch.cat([counted, others_counted])].mean()
    loss.backward()
    for _, mean, gradients in told:
        assert mean == pytest.approx(float(loss.detach()), rel=1e-5)
        torch.testing.assert_close(gradients, gradients_of(model), rtol=1e-4, atol=1e-6)
