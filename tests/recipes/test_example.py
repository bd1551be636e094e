"""The examples of the documentation, as they stand there."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from cluster.recipe import find_recipe
from learners.distributions import Categorical
from learners.model import ActorCritic
from learners.nets.encoders import SmallConv
from tests.cluster.worlds import world_of
from tests.learners.small import random_batch, small_model

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
HERE = Topology(actors=1, learners=1, local=True)


def returns(experiment: Experiment, folder: Path, steps: int) -> list[float]:
    """Of the episodes that ended, in order."""
    totals: list[float] = []
    with world_of(experiment, folder) as world:
        done = 0
        while done < steps:
            advance = world.advance()
            done = advance.steps
            totals += [episode.total for report in advance.reports for episode in report.episodes]
    return totals


def test_an_objective_and_its_recipe_fit_into_forty_lines_and_learn(tmp_path: Path) -> None:
    assert len((EXAMPLES / "awr.py").read_text().splitlines()) < 40
    recipe = find_recipe(f"{EXAMPLES / 'awr.py'}:awr")
    found = returns(recipe(topology=HERE, steps=20_000), tmp_path, 20_000)
    assert sum(found[:20]) / 20 < 40, "a random policy keeps the pole up for some twenty steps"
    assert sum(found[-20:]) / 20 > 60


def test_actions_are_weighted_by_their_advantage() -> None:
    (objective,) = find_recipe(f"{EXAMPLES / 'awr.py'}:awr")(temperature=2.0).objectives()
    model, batch = small_model(), random_batch(3, 6)
    columns = batch | {"weight": torch.full((3, 6), 2.0), "counted": batch["mask"], "return": batch["value"]}
    out = model(columns)
    terms = objective.terms(model, out, columns)
    assert isinstance(out.dist, Categorical)
    chosen = out.dist.logits.log_softmax(-1).gather(-1, batch["action"].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(terms["regression_loss"].value, -2.0 * chosen)
    assert terms["regression_loss"].weight == 1.0 and terms["weight"].weight == 0.0
    from learners.group import Group

    prepared = objective.prepare(model, batch, Group())
    counted = prepared["counted"] > 0
    wanted = (prepared["advantage"] / 2.0).exp().clamp(max=20.0)
    torch.testing.assert_close(prepared["weight"], wanted)
    assert prepared["weight"][counted].std() > 0


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_the_past_by_priority_trains(exponent: float, tmp_path: Path) -> None:
    """On a small game: the example's own is Atari's."""
    experiment = find_recipe(f"{EXAMPLES / 'history.py'}:history")(
        "actors.envs:StaticRecall-v0", exponent=exponent, capacity=2000, topology=HERE
    )
    (gradient,) = experiment.updates
    past = replace(experiment.tables["past"], batch=64)
    small = replace(
        experiment,
        environment=Environment("actors.envs:StaticRecall-v0"),
        model=ActorCritic(encoder=SmallConv(16), stack=4),
        tables={**experiment.tables, "past": past},
        updates=(replace(gradient, epochs=1, minibatches=2),),
    )
    with world_of(small, tmp_path) as world:
        metrics = [world.advance().metrics for _ in range(2)][-1]
    assert metrics["contrast/loss"] > 0 and metrics["train/first_ratio_error"] < 1e-3
    assert metrics["replay/past/priorities_set"] > 0
