"""CURL's loss against a loop, its identity with instance discrimination, what it moves, and that it recognises."""

import math

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from learners.augment import GaussianNoise, RandomShift
from learners.contrast import Scorer
from learners.gradient import Gradient
from learners.group import Group
from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp, SmallConv
from learners.objective import Batch, Objective, Sum, reduce, tagged_terms
from learners.objectives.clone import Clone
from learners.objectives.curl import Curl
from learners.update import Average
from replay.schema import Column

IMAGE = {"observation": Column("uint8", (32, 32))}


def model(objective: Objective) -> Model:
    torch.manual_seed(0)
    return ActorCritic(SmallConv(32)).build(IMAGE, gym.spaces.Discrete(3), [objective])


def batch(rows: int = 12, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (rows, 1, 1, 8, 8), generator=generator, dtype=torch.uint8)
    frames = coarse.repeat_interleave(4, -1).repeat_interleave(4, -2)
    return {"observation": frames, "mask": torch.ones(rows, 1)}


def loss_of(objective: Curl, on: Model, columns: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    prepared = columns | objective.prepare(on, columns, Group())
    return reduce(tagged_terms(objective, on, on(prepared), prepared), Group())


def keys_of(objective: Curl, on: Model, columns: Batch) -> Tensor:
    return objective.prepare(on, columns, Group())["curl_key"].flatten(0, 1)


def literal_loss(query: Tensor, key: Tensor, weight: Tensor, valid: list[int]) -> float:
    losses = []
    for row in valid:
        scores = {column: float(query[row] @ weight @ key[column]) for column in valid}
        losses.append(math.log(sum(math.exp(score) for score in scores.values())) - scores[row])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("masked", [[], [3, 7]])
def test_loss_equals_the_definition_on_valid_rows(masked: list[int]) -> None:
    objective = Curl(features=16, augment=RandomShift(0))
    on, columns = model(objective), batch()
    columns["mask"][masked] = 0
    with torch.no_grad():
        on.heads["curl"].weight.add_(0.1 * torch.randn(16, 16))
        for parameter in on.slow_parts.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    loss, means = loss_of(objective, on, columns)
    with torch.no_grad():
        query = on.heads["curl"].projection(on.encode({"observation": columns["observation"][:, 0]}))
        key = on.slow("curl.projection")(on.slow("encoder")({"observation": columns["observation"][:, 0]}))
    valid = [row for row in range(12) if row not in masked]
    weight = on.heads["curl"].weight.detach()
    assert float(loss.detach()) == pytest.approx(literal_loss(query, key, weight, valid), abs=1e-5)
    assert float(means["contrast/information"]) == pytest.approx(math.log(len(valid)) - float(loss.detach()), abs=1e-5)


def test_cosine_scores_have_no_matrix() -> None:
    objective = Curl(scorer=Scorer("cosine", 0.1), features=16)
    on, columns = model(objective), batch()
    assert on.heads["curl"].weight is None
    loss, _ = loss_of(objective, on, columns)
    assert 0 < float(loss.detach()) < math.log(12) + 20


def test_temperature_divides_the_scores() -> None:
    query, key, weight = torch.randn(3, 4), torch.randn(3, 4), torch.randn(4, 4)
    for kind in ("bilinear", "cosine", "distance"):
        warm = Scorer(kind, 2.0)(query, key, weight)
        torch.testing.assert_close(warm * 2, Scorer(kind)(query, key, weight))


def test_gradient_reaches_encoder_and_head_but_no_slow_copy() -> None:
    objective = Curl(features=16)
    on, columns = model(objective), batch()
    loss, _ = loss_of(objective, on, columns)
    loss.backward()
    reached = {name.split(".")[0] for name, p in on.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"encoder", "heads"}
    assert on.heads["curl"].weight.grad.any()
    assert all(parameter.grad is None for parameter in on.slow_parts.parameters())


def test_keys_are_shifted_copies_and_anchors_are_not() -> None:
    objective = Curl(features=16, augment=RandomShift(4))
    on, columns = model(objective), batch()
    keys = [keys_of(objective, on, columns) for _ in range(2)]
    assert not torch.allclose(*keys), "two draws of the shift give the same keys"
    still = keys_of(Curl(features=16, augment=RandomShift(0)), on, columns)
    torch.testing.assert_close(still, keys_of(Curl(features=16, augment=RandomShift(0)), on, columns))
    query = on.heads["curl"].projection(on(columns).features.flatten(0, 1))
    torch.testing.assert_close(query, still, msg="before any step the slow copy equals the encoder")


def test_a_masked_row_does_not_matter() -> None:
    objective = Curl(features=16, augment=RandomShift(0))
    on, columns = model(objective), batch()
    columns["mask"][5] = 0
    other = columns | {"observation": columns["observation"].clone()}
    other["observation"][5] = 0
    results = [loss_of(objective, on, each) for each in (columns, other)]
    torch.testing.assert_close(results[0], results[1])


def test_it_learns_to_recognise_shifted_frames() -> None:
    objective = Curl(features=32, augment=RandomShift(3))
    on = model(objective)
    optimiser = torch.optim.Adam([p for p in on.parameters() if p.requires_grad], lr=1e-3)
    history = []
    for step in range(80):
        columns = batch(48, seed=step)
        loss, means = loss_of(objective, on, columns)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            for part in objective.slow:
                torch._foreach_lerp_(list(on.slow(part).parameters()), list(on.part(part).parameters()), 0.05)
        history.append({name: float(value) for name, value in means.items()})
    first, last = history[0], history[-1]
    assert last["contrast/loss"] < 0.7 * first["contrast/loss"], (first, last)
    assert last["contrast/accuracy"] > 10 / 48
    assert last["contrast/positive_similarity"] > last["contrast/negative_similarity"] + 0.2
    assert last["contrast/embedding_std"] > 0.05
    assert last["contrast/effective_rank"] > 2


def test_an_observation_without_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"RandomShift\(pad=4\) changes images"):
        ActorCritic(Mlp()).build({"observation": Column("float32", (3,))}, gym.spaces.Discrete(2), [Curl()])


def test_keys_in_pieces_are_those_of_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Curl(features=16, augment=RandomShift(0))
    on, columns = model(objective), batch()
    whole = keys_of(objective, on, columns)
    monkeypatch.setattr("learners.keys.KEY_ROWS", 5)
    torch.testing.assert_close(keys_of(objective, on, columns), whole)


def instance_discrimination(embedded: Tensor, temperature: float) -> float:
    """Every row a class of its own whose weights are its embedding (Wu et al., arXiv:1805.01978, eq. 2), literally."""
    losses = []
    for row in range(len(embedded)):
        scores = [float(embedded[row] @ other) / temperature for other in embedded]
        losses.append(math.log(sum(map(math.exp, scores))) - scores[row])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("kind", ["bilinear", "cosine"])
def test_without_change_matrix_and_momentum_it_is_instance_discrimination(kind: str) -> None:
    """Identity W, no shift, and a slow copy of rate 1: the key is the query, so each row is told from all others."""
    objective = Curl(features=16, augment=RandomShift(0), scorer=Scorer(kind, 0.5))
    on, columns = model(objective), batch()
    with torch.no_grad():
        if kind == "bilinear":
            on.heads["curl"].weight.copy_(torch.eye(16))
        for parameter in [*on.encoder.parameters(), *on.heads["curl"].projection.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
        for part in objective.slow:
            Average(part, rate=1.0).start(on, Group()).step({}, progress=0.0)
        embedded = on.heads["curl"].projection(on(columns).features.flatten(0, 1)).double()
    if kind == "cosine":
        embedded = embedded / embedded.norm(dim=1, keepdim=True)
    loss, _ = loss_of(objective, on, columns)
    assert float(loss.detach()) == pytest.approx(instance_discrimination(embedded, 0.5), abs=1e-4)


VECTOR = {"observation": Column("float32", (6,)), "task": Column("int64", ())}


def vectors(rows: int = 64, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    units = torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0, 1.0])
    return {
        "observation": torch.randn(rows, 1, 6, generator=generator) * units,
        "task": torch.arange(rows).unsqueeze(1),
        "mask": torch.ones(rows, 1),
    }


def test_vectors_are_changed_by_noise_in_their_own_units() -> None:
    objective, columns = Curl(augment=GaussianNoise(0.1)), vectors(4000)
    on = ActorCritic(Mlp()).build(VECTOR, gym.spaces.Discrete(2), [objective])
    changed = objective.changed(on, columns)
    noise = (changed["observation"] - columns["observation"][:, 0]).std(0)
    torch.testing.assert_close(noise, 0.1 * columns["observation"][:, 0].std(0), rtol=0.06, atol=0)
    assert torch.equal(changed["task"], columns["task"][:, 0]), "a whole number is a name"


def test_it_learns_to_recognise_noisy_vectors() -> None:
    objective = Curl(augment=GaussianNoise(1.0), features=32)
    on = ActorCritic(Mlp()).build({"observation": VECTOR["observation"]}, gym.spaces.Discrete(2), [objective])
    engine = Gradient(
        {"fresh": objective}, lr=3e-3, epochs=1, minibatches=1, then=tuple(Average(part) for part in objective.slow)
    ).start(on, Group())
    history = []
    for step in range(150):
        columns = vectors(128, seed=step)
        columns["observation"] *= torch.tensor([1e3, 1, 1e-3, 1, 1, 1])
        history.append(engine.step({"fresh": columns}, progress=0.0))
    first, last = (sum(each["contrast/information"] for each in part) / 10 for part in (history[:10], history[-10:]))
    assert last > first + 0.15, (first, last)
    assert 0.1 < history[-1]["contrast/accuracy"] < 0.95


def test_both_views_can_be_changed() -> None:
    objective = Curl(features=16, both=True)
    on, columns = model(objective), batch()
    prepared = columns | objective.prepare(on, columns, Group())
    first, second = (reduce(tagged_terms(objective, on, on(prepared), prepared), Group())[0] for _ in range(2))
    assert not torch.equal(first, second), "the anchor is not changed"
    still = Curl(features=16, both=True, augment=RandomShift(0))
    shared = Curl(features=16, augment=RandomShift(0))
    torch.testing.assert_close(loss_of(still, on, columns), loss_of(shared, on, columns))


def test_shuffled_pairs_teach_nothing() -> None:
    objective = Curl(features=16, augment=RandomShift(0), shuffled=True)
    on, columns = model(objective), batch(256)
    columns["mask"][:128] = 0
    honest, shuffled = (loss_of(o, on, columns)[1] for o in (Curl(features=16, augment=RandomShift(0)), objective))
    assert honest["contrast/accuracy"] == 1
    assert shuffled["contrast/accuracy"] < 0.05
    assert shuffled["contrast/loss"] > math.log(128)


def test_fresh_rows_and_history_in_one_backward_pass() -> None:
    """Two tables, one head: the gradient is the sum of both, and the tags are apart."""
    fresh, past = Curl(features=16, augment=RandomShift(0)), Curl(features=16, augment=RandomShift(0), group="history")
    on = ActorCritic(SmallConv(32)).build(IMAGE, gym.spaces.Discrete(3), [fresh, past])
    sizes, gradients = (12, 30), []
    for objective, rows in zip((fresh, past), sizes, strict=True):
        loss, _ = loss_of(objective, on, batch(rows, seed=rows))
        gradients.append(torch.autograd.grad(loss, list(on.encoder.parameters())))
    then = tuple(Average(part) for part in fresh.slow)
    engine = Gradient(
        {"fresh": fresh, "past": past}, lr=0.0, epochs=1, minibatches=1, max_gradient_norm=1e9, then=then
    ).start(on, Group())
    metrics = engine.step({"fresh": batch(12, seed=12), "past": batch(30, seed=30)}, progress=0.0)
    for parameter, one, other in zip(on.encoder.parameters(), *gradients, strict=True):
        torch.testing.assert_close(parameter.grad, one + other, rtol=1e-3, atol=1e-5)
    assert {"contrast/loss", "history/loss"} <= metrics.keys()


def test_objectives_that_share_a_head_must_agree_about_it() -> None:
    with pytest.raises(ValueError, match='two objectives want the head "curl" with different sizes'):
        ActorCritic(SmallConv(32)).build(IMAGE, gym.spaces.Discrete(3), [Curl(features=16), Curl(features=8)])


def test_one_encoder_pass_serves_all_objectives(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Sum({"clone": (1.0, Clone()), "curl": (1.0, Curl(features=16))})
    on, calls = model(objective), []
    columns = batch() | {"action": torch.zeros(12, 1, dtype=torch.int64)}
    columns |= objective.prepare(on, columns, Group())
    monkeypatch.setattr(
        on.encoder, "forward", lambda seen, forward=on.encoder.forward: calls.append(1) or forward(seen)
    )
    reduce(tagged_terms(objective, on, on(columns), columns), Group())
    assert len(calls) == 1
