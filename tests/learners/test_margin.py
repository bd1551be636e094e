"""Margin losses: which rows they compare, what they cost, and whether they find the states of a noisy ring."""

import gymnasium as gym
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from learners.gradient import Gradient
from learners.group import Group, Joined
from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp
from learners.objective import Batch, reduce, tagged_terms
from learners.objectives.margin import Margin, companions
from replay.schema import Column

STATES, NOISE, DISTRACTORS = 10, 0.1, 10


def model(objective: Margin) -> Model:
    torch.manual_seed(0)
    spec = ActorCritic(Mlp((64,), "relu"))
    return spec.build({"observation": Column("float32", (STATES + DISTRACTORS,))}, gym.spaces.Discrete(2), [objective])


def walks(streams: int = 16, rows: int = 12, seed: int = 0) -> tuple[Batch, Tensor]:
    """A batch of random walks on a ring, and the states (streams, rows).

    Each row is a noisy one-hot of its state, and beside it numbers that mean nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    moves = torch.randint(0, 2, (streams, rows), generator=generator) * 2 - 1
    state = (torch.randint(STATES, (streams, 1), generator=generator) + moves.cumsum(1)) % STATES
    seen = torch.nn.functional.one_hot(state, STATES) + NOISE * torch.randn(streams, rows, STATES, generator=generator)
    shape = (streams, rows)
    batch = {
        "observation": torch.cat([seen, 0.4 * torch.randn(streams, rows, DISTRACTORS, generator=generator)], -1),
        "mask": torch.ones(shape),
        "episode": torch.arange(streams).unsqueeze(1).expand(shape).clone(),
        "step": torch.arange(rows).expand(shape).clone(),
    }
    return batch, state


def test_companions_are_near_in_the_same_episode_and_far() -> None:
    batch, _ = walks(6, 9)
    batch["episode"][2, 4:] += 50
    batch["step"][2, 4:] -= 4
    batch["mask"][1, 3] = batch["mask"][5, 8] = 0
    episode, step, mask = (batch[name].flatten() for name in ("episode", "step", "mask"))
    seen = set()
    for _ in range(200):
        positive, negative, counted = companions(batch, 2, Joined())
        for row in counted.nonzero().flatten().tolist():
            near, far = int(positive[row]), int(negative[row])
            assert mask[row] and mask[near] and mask[far]
            assert near // 9 == row // 9
            assert episode[near] == episode[row]
            assert 1 <= step[near] - step[row] <= 2
            assert episode[far] != episode[row] or abs(int(step[far] - step[row])) > 2
            seen.add((row, near))
    assert (0, 1) in seen and (0, 2) in seen, "not all distances occur"
    assert not any(row in (8, 12, 21) for row, _ in seen), "last, masked, or the end of an episode"


@pytest.mark.parametrize("kind", ["triplet", "pairwise"])
def test_loss_equals_the_definition(kind: str) -> None:
    objective = Margin(kind=kind, margin=0.7, features=5)
    on, (batch, _) = model(objective), walks()
    torch.manual_seed(3)
    with torch.no_grad():
        terms = objective.terms(on, on(batch), batch)
    torch.manual_seed(3)
    positive, negative, counted = companions(batch, 1, Joined())
    z = normalize(on.heads["margin"](on(batch).features.flatten(0, 1)), dim=1).detach()
    for row in counted.nonzero().flatten().tolist()[::7]:
        near, far = ((z[row] - z[other[row]]).norm() for other in (positive, negative))
        hinge = torch.relu(near**2 - far**2 + 0.7)
        wanted = hinge if kind == "triplet" else 0.5 * near**2 + 0.5 * torch.relu(0.7 - far) ** 2
        assert float(terms["loss"].value.flatten()[row]) == pytest.approx(float(wanted), abs=1e-5)
    assert torch.equal(terms["loss"].mask.flatten() > 0, counted)


def nearest_state(on: Model) -> float:
    """How often the nearest embedding of other walks is that of the same state."""
    with torch.no_grad():
        sets = [walks(64, 12, seed=seed) for seed in (1000, 1001)]
        known, asked = (normalize(on.heads["margin"](on(batch).features.flatten(0, 1)), dim=1) for batch, _ in sets)
        found = sets[0][1].flatten()[torch.cdist(asked, known).argmin(1)]
    return float((found == sets[1][1].flatten()).float().mean())


@pytest.mark.parametrize(("kind", "margin"), [("triplet", 0.2), ("pairwise", 1.0)])
def test_it_finds_the_states_of_a_ring(kind: str, margin: float) -> None:
    objective = Margin(kind=kind, margin=margin, features=16)
    on = model(objective)
    assert nearest_state(on) < 0.8
    engine = Gradient({"fresh": objective}, lr=3e-3, epochs=1, minibatches=1).start(on, Group())
    history = [engine.step({"fresh": walks(32, 12, seed=seed)[0]}, progress=0.0) for seed in range(600)]
    assert nearest_state(on) >= 0.99
    assert history[-1]["contrast/loss"] < 0.8 * history[0]["contrast/loss"]
    assert history[-1]["contrast/accuracy"] > 0.75
    assert history[99]["contrast/active"] > 0
    assert history[-1]["contrast/effective_rank"] > 2, "collapsed"


def test_short_windows_are_refused() -> None:
    objective = Margin(near=12)
    on, (batch, _) = model(objective), walks()
    with pytest.raises(ValueError, match="near=12 needs windows of at least 13 rows, got 12"):
        objective.terms(on, on(batch), batch)


def test_rows_without_a_partner_give_a_finite_gradient() -> None:
    objective = Margin()
    on, (batch, _) = model(objective), walks()
    batch["mask"].zero_()
    loss, _ = reduce(tagged_terms(objective, on, on(batch), batch), Group())
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad.isfinite().all() for p in on.parameters() if p.grad is not None)
