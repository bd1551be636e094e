"""Cloning's loss against a loop, for every distribution; which parameters it moves; and that it copies an expert."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from learners.gradient import Gradient
from learners.group import Group
from learners.model import ActorCritic, Model
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp
from learners.objective import Batch, Sum, reduce, tagged_terms
from learners.objectives.clone import Clone
from learners.objectives.ppo import PPO
from replay.schema import Column
from tests.learners.small import random_batch, small_model

SPACES = {
    "discrete": gym.spaces.Discrete(4, start=2),
    "multi-discrete": gym.spaces.MultiDiscrete([2, 3]),
    "bits": gym.spaces.MultiBinary(3),
    "box": gym.spaces.Box(-1, 1, (2,), np.float32),
}


def model(space: gym.Space, *, recurrent: bool = False) -> Model:
    torch.manual_seed(0)
    spec = ActorCritic(Mlp((16,)), core=Gru(8) if recurrent else None)
    built = spec.build({"observation": Column("float32", (3,))}, space)
    with torch.no_grad():
        built.policy.linear.weight.mul_(100)  # away from uniform
    return built


def batch(space: gym.Space, windows: int = 4, rows: int = 5) -> Batch:
    """Rows with nothing that only an acting policy records, as an imported store may have them."""
    generator = torch.Generator().manual_seed(1)
    space.seed(2)
    actions = np.stack([[space.sample() for _ in range(rows)] for _ in range(windows)])
    mask = (torch.rand(windows, rows, generator=generator) > 0.3).float()
    return {
        "observation": torch.randn(windows, rows, 3, generator=generator),
        "action": torch.from_numpy(actions),
        "mask": mask,
        "step": torch.arange(1, rows + 1).expand(windows, rows),
        "core_state": torch.zeros(windows, rows, 8),
    }


def reference(out, action: Tensor, space: gym.Space) -> Tensor:
    """Log-probability of one row's action, by torch's own distributions."""
    from torch import distributions as d

    if isinstance(space, gym.spaces.Discrete):
        return d.Categorical(logits=out.logits).log_prob(action - space.start)
    if isinstance(space, gym.spaces.MultiDiscrete):
        logits = out.logits.split(tuple(space.nvec), -1)
        return sum(d.Categorical(logits=each).log_prob(part) for each, part in zip(logits, action, strict=True))
    if isinstance(space, gym.spaces.MultiBinary):
        return d.Bernoulli(logits=out.logits).log_prob(action.float()).sum()
    return d.Normal(out.mean, out.log_std.exp()).log_prob(action).sum()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_loss_equals_a_loop_over_the_decided_rows(space: gym.Space) -> None:
    on, columns = model(space), batch(space)
    loss, means = reduce(tagged_terms(Clone(), on, on(columns), columns), Group())
    total, near, rows = 0.0, 0.0, 0
    for window, row in columns["mask"].nonzero().tolist():
        one = {name: column[window : window + 1, row : row + 1] for name, column in columns.items()}
        dist = on(one).dist
        flat = type("Row", (), {name: value[0, 0] for name, value in dist.parameters().items()})
        action = columns["action"][window, row]
        total -= float(reference(flat, action, space).detach())
        mode = dist.mode()[0, 0].detach()
        near += float((mode - action).norm()) if space is SPACES["box"] else float(torch.equal(mode, action))
        rows += 1
    assert 0 < rows < columns["mask"].numel()
    assert float(loss.detach()) == pytest.approx(total / rows, rel=1e-5)
    assert float(means["clone/loss"]) == pytest.approx(total / rows, rel=1e-5)
    name = "clone/error" if space is SPACES["box"] else "clone/accuracy"
    assert float(means[name]) == pytest.approx(near / rows, abs=1e-6)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_rows_without_a_decision_do_not_matter(space: gym.Space) -> None:
    on, columns = model(space), batch(space)
    spoilt = columns | {"action": columns["action"].clone()}
    spoilt["action"][columns["mask"] == 0] = 0 if space is not SPACES["box"] else math.inf
    results = []
    for each in (columns, spoilt):
        loss, means = reduce(tagged_terms(Clone(entropy=0.1), on, on(each), each), Group())
        gradient = torch.autograd.grad(loss, list(on.policy.parameters()))
        assert all(g.isfinite().all() for g in gradient)
        results.append((loss, means, gradient))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("recurrent", [False, True])
def test_it_moves_the_policy_and_not_the_critic(recurrent: bool) -> None:
    on, columns = model(SPACES["discrete"], recurrent=recurrent), batch(SPACES["discrete"])
    engine = Gradient({"demonstrations": Clone()}, epochs=1, minibatches=2).start(on, Group())
    before = {name: parameter.clone() for name, parameter in on.named_parameters()}
    metrics = engine.step({"demonstrations": columns}, progress=0.0)
    moved = {name.split(".")[0] for name, p in on.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"encoder", "policy"} | ({"core"} if recurrent else set())
    assert {"clone/loss", "clone/accuracy", "clone/entropy_loss"} <= set(metrics)


def test_entropy_bonus_is_subtracted() -> None:
    on, columns = model(SPACES["discrete"]), batch(SPACES["discrete"])
    plain, means = reduce(tagged_terms(Clone(), on, on(columns), columns), Group())
    with_bonus, _ = reduce(tagged_terms(Clone(entropy=0.5), on, on(columns), columns), Group())
    torch.testing.assert_close(with_bonus, plain + 0.5 * means["clone/entropy_loss"])
    assert float(means["clone/entropy_loss"]) < 0


def test_it_can_be_summed_with_ppo() -> None:
    both = Sum({"ppo": (1.0, PPO()), "clone": (0.5, Clone())})
    on, columns = small_model(both), random_batch(4, 6)
    columns |= both.prepare(on, columns, Group())
    terms = tagged_terms(both, on, on(columns), columns)
    assert terms["clone/loss"].weight == 0.5
    loss, _ = reduce(terms, Group())
    assert loss.isfinite()


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_it_copies_an_expert(kind: str) -> None:
    """The expert looks at the sign of the first coordinate; what was learned is tried on rows never seen."""
    space, torch_rng = SPACES[kind], torch.Generator().manual_seed(3)
    on = model(space)
    engine = Gradient({"demonstrations": Clone()}, lr=3e-3, epochs=1, minibatches=4).start(on, Group())

    def demonstrations(rows: int) -> Batch:
        observation = torch.randn(rows, 1, 3, generator=torch_rng)
        right = (observation[..., 0] > 0).long()
        action = right + 2 if kind == "discrete" else torch.stack([2.0 * right - 1, observation[..., 1]], -1)
        return {"observation": observation, "action": action, "mask": torch.ones(rows, 1)}

    for _ in range(100):
        engine.step({"demonstrations": demonstrations(256)}, progress=0.0)
    unseen = demonstrations(512)
    _, means = reduce(tagged_terms(Clone(), on, on(unseen), unseen), Group())
    if kind == "discrete":
        assert float(means["clone/accuracy"]) > 0.97
        assert float(means["clone/loss"]) < 0.15
    else:
        assert float(means["clone/error"]) < 0.35
