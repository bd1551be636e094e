"""CPC's loss against a loop over pairs, its identity with InfoNCE, and the dot whose velocity nobody shows."""

import math
from dataclasses import replace

import gymnasium as gym
import pytest
import torch

from benchmarks.cpc_probe import BARS, probe
from learners.contrast import Scorer, bilinear, info_nce
from learners.group import Group
from learners.model import ActorCritic, Model
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp
from learners.objective import Batch, reduce, tagged_terms
from learners.objectives.cpc import Cpc, pairs
from learners.objectives.tcl import tcl
from learners.output import Output
from learners.update import Average
from replay.schema import Column


def model(objective: Cpc, *, recurrent: bool = True) -> Model:
    torch.manual_seed(0)
    spec = ActorCritic(Mlp((12,)), core=Gru(8) if recurrent else None)
    return spec.build({"observation": Column("float32", (3,))}, gym.spaces.Discrete(2), [objective])


def batch(streams: int = 4, rows: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(0)
    episode = torch.arange(streams).unsqueeze(1).repeat(1, rows)
    episode[1, 4:] += 100
    step = torch.arange(rows).repeat(streams, 1)
    step[1, 4:] -= 4
    mask = torch.ones(streams, rows)
    mask[1, 3] = mask[2, -1] = 0  # a final observation, and a row of the next window
    return {
        "observation": torch.randn(streams, rows, 3, generator=generator),
        "mask": mask,
        "episode": episode,
        "step": step,
        "core_state": torch.zeros(streams, rows, 8),
    }


def exact(on: Model, columns: Batch) -> Output:
    """The model's output in float64, with its CPC head, so that the loss can be compared to the last digits."""
    out = on(columns)
    on.heads.double()
    return out.having(features=out.features.double(), context=out.context.double())


def literal_losses(objective: Cpc, on: Model, out: Output, columns: Batch) -> dict[int, list[float]]:
    """Every counted pair's loss, by step."""
    head = on.heads["cpc"]
    latent = head.latent(out.features).detach()
    rows = [tuple(row) for row in columns["mask"].nonzero().tolist()]
    losses: dict[int, list[float]] = {}
    for step in range(1, objective.steps + 1):
        weight = head.predictors[step - 1].weight.detach()
        losses[step] = []
        for stream, row in rows:
            later = (stream, row + step)
            if later not in rows or columns["episode"][later] != columns["episode"][stream, row]:
                continue
            score = {
                other: float(latent[other] @ weight @ out.context[stream, row].detach()) / objective.features**0.5
                for other in rows
            }
            losses[step].append(math.log(sum(map(math.exp, score.values()))) - score[later])
    return losses


def test_equals_a_loop_over_pairs() -> None:
    objective = Cpc(steps=3, features=5)
    on, columns = model(objective), batch()
    out = exact(on, columns)
    loss, means = reduce(tagged_terms(objective, on, out, columns), Group())
    losses = literal_losses(objective, on, out, columns)
    # Stream 1 has 3 rows before the end and 3 after: 2 + 2 pairs at step 1, 1 + 1 at 2, none at 3.
    assert [len(losses[step]) for step in (1, 2, 3)] == [6 + 4 + 5 + 6, 5 + 2 + 4 + 5, 4 + 0 + 3 + 4]
    averages = {step: sum(each) / len(each) for step, each in losses.items()}
    for step, average in averages.items():
        assert float(means[f"contrast/loss_{step}"]) == pytest.approx(average, abs=1e-6)
        information = math.log(int(columns["mask"].sum())) - average
        assert float(means[f"contrast/information_{step}"]) == pytest.approx(information, abs=1e-6)
    assert float(loss.detach()) == pytest.approx(sum(averages.values()) / 3, abs=1e-6)


def test_one_step_without_context_is_info_nce() -> None:
    """K=1 on a model without core scores a row with the next bilinearly, as time-contrastive learning does."""
    objective = Cpc(steps=1, features=5)
    on, columns = model(objective, recurrent=False), batch()
    columns["mask"].fill_(1)
    columns["episode"] = torch.zeros_like(columns["episode"])
    out, head = exact(on, columns), on.heads["cpc"]
    anchor, latent = out.features[:, :-1].flatten(0, 1), head.latent(out.features).flatten(0, 1)
    weight = head.predictors[0].weight.T / math.sqrt(5)
    positive = torch.arange(28).view(4, 7)[:, 1:].flatten()
    expected, correct = info_nce(bilinear(anchor, latent, weight), positive)
    loss, means = reduce(tagged_terms(objective, on, out, columns), Group())
    torch.testing.assert_close(loss, expected.mean(), rtol=0, atol=1e-10)
    torch.testing.assert_close(means["contrast/accuracy_1"], correct.mean(), check_dtype=False)


def test_pairs_stay_inside_episode_and_window() -> None:
    columns = batch()
    mask = pairs(columns["mask"], columns["episode"], 2)
    assert mask[1].tolist() == [1, 0, 0, 0, 1, 0, 0]
    assert mask[2].tolist() == [1, 1, 1, 1, 0, 0, 0]
    assert mask[0].tolist() == [1, 1, 1, 1, 1, 0, 0]


def test_gradient_reaches_both_sides_and_every_predictor() -> None:
    objective = Cpc(steps=2, features=5)
    on, columns = model(objective), batch()
    loss, _ = reduce(tagged_terms(objective, on, on(columns), columns), Group())
    loss.backward()
    reached = {name for name, p in on.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[0] for name in reached} == {"encoder", "core", "heads"}
    assert {"heads.cpc.latent.weight", "heads.cpc.predictors.0.weight", "heads.cpc.predictors.1.weight"} <= reached


def test_gradient_flows_through_context_and_latents_alike() -> None:
    """Each side moves the encoder on its own: with the other one cut off, its gradient still arrives."""
    objective = Cpc(steps=2, features=5)
    on, columns = model(objective), batch()
    out = on(columns)
    cut = {
        "context": out.having(context=out.context.detach()),
        "features": out.having(features=out.features.detach()),
    }
    for side, partial in cut.items():
        loss, _ = reduce(tagged_terms(objective, on, partial, columns), Group())
        gradients = torch.autograd.grad(loss, list(on.encoder.parameters()), retain_graph=True)
        assert all(gradient.any() for gradient in gradients), f"with {side} cut off"


def test_masked_rows_do_not_matter() -> None:
    objective = Cpc(steps=2, features=5)
    on, columns = model(objective, recurrent=False), batch()
    other = columns | {"observation": columns["observation"].clone()}
    other["observation"][columns["mask"] == 0] = 50.0
    results = [reduce(tagged_terms(objective, on, on(each), each), Group()) for each in (columns, other)]
    torch.testing.assert_close(results[0], results[1])


def test_windows_must_be_longer_than_the_horizon() -> None:
    objective = Cpc(steps=7)
    on, columns = model(objective), batch()
    with pytest.raises(ValueError, match="steps=7 needs windows of at least 8 rows, got 7"):
        objective.terms(on, on(columns), columns)


def test_one_step_without_context_is_temporal_contrast() -> None:
    """CPC with K=1 on a model without core equals TCL, whatever core TCL's model has."""
    without, with_core = Cpc(steps=1, features=0), tcl(steps=1)
    assert (without.name, with_core.name) == ("cpc", "tcl")
    one, other, columns = model(without, recurrent=False), model(with_core), batch()
    other.encoder.load_state_dict(one.encoder.state_dict())
    with torch.no_grad():
        one.heads["cpc"].predictors[0].weight.add_(0.1 * torch.randn(12, 12))
        other.heads["tcl"].predictors[0].weight.copy_(one.heads["cpc"].predictors[0].weight)
    pairs = ((without, one), (with_core, other))
    losses = [reduce(tagged_terms(each, on, on(columns), columns), Group()) for each, on in pairs]
    torch.testing.assert_close(losses[0][0], losses[1][0])
    literal = literal_temporal_contrast(one, columns)
    assert float(losses[1][0].detach()) == pytest.approx(literal, abs=1e-5)


def literal_temporal_contrast(on: Model, columns: Batch) -> float:
    """phi(o_t)^T W phi(o_t+1) against all decided rows, pair by pair."""
    phi, weight = on(columns).features.detach().double(), on.heads["cpc"].predictors[0].weight.detach().double()
    rows, losses = [tuple(row) for row in columns["mask"].nonzero().tolist()], []
    for stream, row in rows:
        later = (stream, row + 1)
        if later in rows and columns["episode"][later] == columns["episode"][stream, row]:
            score = {other: float(phi[other] @ weight @ phi[stream, row]) / 12**0.5 for other in rows}
            losses.append(math.log(sum(map(math.exp, score.values()))) - score[later])
    return sum(losses) / len(losses)


def test_temporal_contrast_starts_by_comparing_features_as_they_are() -> None:
    head = model(tcl(steps=2)).heads["tcl"]
    assert all(torch.equal(predictor.weight, torch.eye(12)) for predictor in head.predictors)


@pytest.mark.parametrize("objective", [Cpc(steps=2, features=5, momentum=True), tcl(steps=2, momentum=True)])
def test_momentum_keys_come_from_the_slow_copies_and_carry_no_gradient(objective: Cpc) -> None:
    on, columns = model(objective), batch()
    prepared = columns | objective.prepare(on, columns, Group())
    slow, plain = objective.terms(on, on(columns), prepared), replace(objective, momentum=False)
    torch.testing.assert_close(slow["loss_1"].value, plain.terms(on, on(columns), columns)["loss_1"].value)
    with torch.no_grad():
        for parameter in on.slow_parts.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    moved = objective.terms(on, on(columns), columns | objective.prepare(on, columns, Group()))
    assert not torch.allclose(moved["loss_1"].value, slow["loss_1"].value)
    reduce(tagged_terms(objective, on, on(prepared), prepared), Group())[0].backward()
    reached = {name.split(".")[0] for name, p in on.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"encoder", "heads"} | ({"core"} if objective.name == "cpc" else set())
    for part in objective.slow:
        Average(part, rate=1.0).start(on, Group()).step({}, progress=0.0)


def test_a_residual_layer_starts_as_nothing_and_learns() -> None:
    plain, layered = Cpc(steps=1, features=5), Cpc(steps=1, features=5, hidden=7)
    on, columns = model(layered), batch()
    losses = [reduce(tagged_terms(each, on, on(columns), columns), Group())[0] for each in (plain, layered)]
    torch.testing.assert_close(*losses)
    losses[1].backward()
    assert on.heads["cpc"].residual[2].weight.grad.any()


@pytest.mark.parametrize("kind", ["cosine", "distance"])
def test_other_scorers(kind: str) -> None:
    objective = Cpc(steps=1, features=5, scorer=Scorer(kind, 0.5))
    on, columns = model(objective), batch()
    loss, means = reduce(tagged_terms(objective, on, on(columns), columns), Group())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in on.parameters() if p.grad is not None)
    predicted, latent = torch.randn(4, 5), torch.randn(6, 5)
    torch.testing.assert_close(objective.scores(predicted, latent), Scorer(kind, 0.5)(predicted, latent))
    assert float(means["contrast/information_1"]) <= math.log(28)


def test_shuffled_pairs_are_those_of_other_rows_and_change() -> None:
    objective = Cpc(steps=1, features=5, shuffled=True)
    on, columns = model(objective), batch()
    out = on(columns)
    honest = replace(objective, shuffled=False).terms(on, out, columns)["loss_1"]
    first, second = (objective.terms(on, out, columns)["loss_1"] for _ in range(2))
    assert torch.equal(first.mask, honest.mask)
    assert not torch.equal(first.value, second.value)
    counted = honest.mask > 0
    # The same scores are compared, so what they sum to before the positive is taken off does not change.
    assert not torch.allclose(first.value[counted], honest.value[counted])


def test_windows_without_any_pair_give_a_finite_gradient() -> None:
    objective = Cpc(steps=2, features=5)
    on, columns = model(objective), batch()
    columns["mask"].zero_()
    loss, _ = reduce(tagged_terms(objective, on, on(columns), columns), Group())
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad.isfinite().all() for p in on.parameters() if p.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_context_finds_the_hidden_velocity(seed: int) -> None:
    result = probe(seed)
    assert result["context"] >= BARS["context"]
    assert result["frame"] <= BARS["frame"]
    assert result["context"] > result["untrained"] + 0.1
