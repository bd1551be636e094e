"""CURL's loss against a loop, what reaches which parameters, and that it learns to recognise."""

import math

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from learners.group import Group
from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp, SmallConv
from learners.objective import Batch, reduce, tagged_terms
from learners.objectives.curl import Curl
from replay.schema import Column

IMAGE = {"observation": Column("uint8", (32, 32))}


def model(objective: Curl) -> Model:
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
    objective = Curl(features=16, pad=0)
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
    objective = Curl(scorer="cosine", temperature=0.1, features=16)
    on, columns = model(objective), batch()
    assert on.heads["curl"].weight is None
    loss, _ = loss_of(objective, on, columns)
    assert 0 < float(loss.detach()) < math.log(12) + 20


def test_temperature_divides_the_scores() -> None:
    query, key, weight = torch.randn(3, 4), torch.randn(3, 4), torch.randn(4, 4)
    warm = Curl(temperature=2.0).scores(query, key, weight)
    torch.testing.assert_close(warm * 2, Curl().scores(query, key, weight))


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
    objective = Curl(features=16, pad=4)
    on, columns = model(objective), batch()
    keys = [keys_of(objective, on, columns) for _ in range(2)]
    assert not torch.allclose(*keys), "two draws of the shift give the same keys"
    still = keys_of(Curl(features=16, pad=0), on, columns)
    torch.testing.assert_close(still, keys_of(Curl(features=16, pad=0), on, columns))
    query = on.heads["curl"].projection(on(columns).features.flatten(0, 1))
    torch.testing.assert_close(query, still, msg="before any step the slow copy equals the encoder")


def test_a_masked_row_does_not_matter() -> None:
    objective = Curl(features=16, pad=0)
    on, columns = model(objective), batch()
    columns["mask"][5] = 0
    other = columns | {"observation": columns["observation"].clone()}
    other["observation"][5] = 0
    results = [loss_of(objective, on, each) for each in (columns, other)]
    torch.testing.assert_close(results[0], results[1])


def test_it_learns_to_recognise_shifted_frames() -> None:
    objective = Curl(features=32, pad=3)
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
    with pytest.raises(ValueError, match="curl shifts images"):
        ActorCritic(Mlp()).build({"observation": Column("float32", (3,))}, gym.spaces.Discrete(2), [Curl()])


def test_keys_in_pieces_are_those_of_all_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Curl(features=16, pad=0)
    on, columns = model(objective), batch()
    whole = keys_of(objective, on, columns)
    monkeypatch.setattr("learners.objectives.curl.KEY_ROWS", 5)
    torch.testing.assert_close(keys_of(objective, on, columns), whole)
