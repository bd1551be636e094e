"""Encoders on every kind of observation, cores across episode ends, heads' initialisation."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners.distributions import Categorical, DiagonalGaussian
from learners.nets.cores import Core, Gru, GruCore
from learners.nets.encoders import EncoderError, Mlp, Nature, SmallConv
from learners.nets.heads import PolicyHead, ValueHead
from learners.nets.transformer import Transformer
from learners.objective import MethodError
from replay.schema import Column


def image(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_mlp_reads_all_columns_side_by_side(activation: str) -> None:
    columns = {"observation.a": Column("float32", (3,)), "observation.b": Column("uint8", (2, 2)), "c": Column("int64")}
    encoder = Mlp((16, 8), activation).build(columns)
    rows = {"observation.a": torch.randn(5, 3), "observation.b": image(5, 2, 2), "c": torch.arange(5)}
    features = encoder(rows)
    assert features.shape == (5, encoder.features) == (5, 8)
    assert features.dtype == torch.float32
    for name in columns:
        changed = rows | {name: torch.flip(rows[name], [0])}
        assert not torch.allclose(encoder(changed)[0], features[0]), f"{name} is not read"


@pytest.mark.parametrize(
    ("spec", "shape", "features"),
    [(Nature(), (4, 84, 84), 512), (Nature(32), (1, 40, 60), 32), (SmallConv(), (1, 32, 32), 128)],
)
def test_convolutional_encoders(spec: Nature | SmallConv, shape: tuple[int, ...], features: int) -> None:
    encoder = spec.build({"observation": Column("uint8", shape)})
    out = encoder({"observation": image(3, *shape)})
    assert out.shape == (3, encoder.features) == (3, features)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_bytes_are_scaled_to_one_and_the_input_is_left_alone() -> None:
    encoder = SmallConv().build({"observation": Column("uint8", (2, 32, 32))})
    frames = image(4, 2, 32, 32)
    kept = frames.clone()
    expected = encoder.norm(encoder.linear(encoder.layers(frames.float() / 255).flatten(1).relu())).relu()
    torch.testing.assert_close(encoder({"observation": frames}), expected)
    assert torch.equal(frames, kept)


def test_a_frame_without_channel_gets_one() -> None:
    frames = image(4, 32, 32)
    torch.manual_seed(0)
    bare = SmallConv().build({"observation": Column("uint8", (32, 32))})
    torch.manual_seed(0)
    explicit = SmallConv().build({"observation": Column("uint8", (1, 32, 32))})
    torch.testing.assert_close(bare({"observation": frames}), explicit({"observation": frames[:, None]}))


def test_bfloat16_differs_by_its_rounding_only() -> None:
    encoder = Nature(64).build({"observation": Column("uint8", (4, 84, 84))})
    frames = {"observation": image(8, 4, 84, 84)}
    exact = encoder(frames)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(frames).float()
    assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_vectors_join_the_image() -> None:
    columns = {"observation.view": Column("uint8", (1, 32, 32)), "observation.speed": Column("float32", (2,))}
    encoder = SmallConv(16).build(columns)
    rows = {"observation.view": image(3, 1, 32, 32), "observation.speed": torch.randn(3, 2)}
    changed = rows | {"observation.speed": rows["observation.speed"] + 1}
    assert not torch.allclose(encoder(rows), encoder(changed))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"observation": Column("float32", (3,))}, "reads one image"),
        ({"a": Column("uint8", (9, 9)), "b": Column("uint8", (9, 9))}, "reads one image"),
        ({"observation": Column("uint8", (96, 96, 3))}, "channels last"),
        ({"observation": Column("uint8", (1, 8, 8))}, "too small"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(columns: dict[str, Column], sentence: str) -> None:
    with pytest.raises(EncoderError, match=sentence):
        Nature().build(columns)


def test_small_conv_wants_even_sides() -> None:
    with pytest.raises(EncoderError, match="33x32 should be even"):
        SmallConv().build({"observation": Column("uint8", (33, 32))})


def row_by_row(
    core: GruCore, features: torch.Tensor, state: torch.Tensor, first: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One cell step per row, state emptied by hand."""
    outs = []
    for row in range(features.shape[1]):
        state = torch.where(first[:, row, None], 0.0, state)
        state = core.gru(features[:, row : row + 1], state.unsqueeze(0))[1][0]
        outs.append(state)
    return torch.stack(outs, 1), state


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_gru_equals_one_step_at_a_time(share: float) -> None:
    torch.manual_seed(0)
    core = Gru(6).build(4).double()
    features = torch.randn(5, 11, 4, dtype=torch.float64, requires_grad=True)
    state, first = torch.randn(5, 6, dtype=torch.float64, requires_grad=True), torch.rand(5, 11) < share
    results = []
    for run in (core, lambda *arguments: row_by_row(core, *arguments)):
        out, last = run(features, state, first)
        inputs = [features, state, *core.parameters()]
        gradients = torch.autograd.grad(out.square().sum() + last.sum(), inputs)
        results.append((out, last, *gradients))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-10)


CORES = [Gru(8), Transformer(hidden=8, layers=2, heads=2, memory=3), Transformer(hidden=6, layers=1, heads=1, memory=9)]


def step_by_step(
    core: Core, features: torch.Tensor, state: torch.Tensor, first: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What a policy computes: one row after the other, and the state before each row and after the last."""
    outs, states = [], [state]
    for row in range(features.shape[1]):
        out, state = core(features[:, row : row + 1], state, first[:, row : row + 1])
        outs.append(out)
        states.append(state)
    return torch.cat(outs, 1), states


@pytest.mark.parametrize("spec", CORES)
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_a_window_equals_its_rows_one_by_one_wherever_it_starts(spec: Gru | Transformer, share: float) -> None:
    core = spec.build(4).double()
    features, first = torch.randn(5, 13, 4, dtype=torch.float64), torch.rand(5, 13) < share
    out, states = step_by_step(core, features, torch.zeros(5, core.state, dtype=torch.float64), first)
    assert out.shape == (5, 13, core.hidden)
    for start in range(13):
        window, last = core(features[:, start:], states[start], first[:, start:])
        torch.testing.assert_close(window, out[:, start:], rtol=0, atol=1e-10)
        torch.testing.assert_close(last, states[-1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", CORES)
def test_a_core_forgets_at_an_episode_start_and_only_there(spec: Gru | Transformer) -> None:
    core = spec.build(3)
    features, first = torch.randn(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool)
    first[1, 3] = True
    changed = features.clone()
    changed[:, 1] += 1
    before, after = (core(each, torch.zeros(2, core.state), first) for each in (features, changed))
    assert not torch.allclose(before[0][0, 4], after[0][0, 4])
    torch.testing.assert_close(before[0][1, 3:], after[0][1, 3:])
    torch.testing.assert_close(before[1][1], after[1][1])
    assert not torch.allclose(before[0][1, 2], after[0][1, 2])
    assert torch.equal(before[0][:, 0], after[0][:, 0]), "a row has seen what came after it"


@pytest.mark.parametrize("spec", CORES)
def test_the_first_row_of_an_episode_does_not_depend_on_the_state(spec: Gru | Transformer) -> None:
    core, features = spec.build(3), torch.randn(4, 5, 3)
    first = torch.tensor([[True, False, False, True, False]]).expand(4, -1)
    empty, full = (core(features, state, first)[0] for state in (torch.zeros(4, core.state), torch.rand(4, core.state)))
    torch.testing.assert_close(empty, full)


@pytest.mark.parametrize("spec", CORES)
def test_a_core_learns_through_time_and_every_parameter_takes_part(spec: Gru | Transformer) -> None:
    core, features = spec.build(3), torch.randn(2, 6, 3, requires_grad=True)
    out, _ = core(features, torch.rand(2, core.state), torch.zeros(2, 6, dtype=torch.bool))
    out[:, 5].square().sum().backward()
    assert (features.grad[:, 3:].abs().sum(-1) > 0).all()
    assert [name for name, parameter in core.named_parameters() if not parameter.grad.any()] == []


def test_a_transformer_layer_sees_its_memory_and_no_further() -> None:
    core = Transformer(hidden=8, layers=1, heads=2, memory=3).build(3)
    features, first = torch.randn(1, 9, 3), torch.zeros(1, 9, dtype=torch.bool)
    changed = features.clone()
    changed[:, 2] += 1
    before, after = (core(each, torch.zeros(1, core.state), first)[0][0] for each in (features, changed))
    differs = [not torch.allclose(one, other, atol=1e-6) for one, other in zip(before, after, strict=True)]
    assert differs == [False, False, True, True, True, True, False, False, False]


def test_a_transformer_tells_near_from_far() -> None:
    """Without the learned bias, rows in the memory could change places."""
    core = Transformer(hidden=8, layers=1, heads=2, memory=4).build(3)
    features, first = torch.randn(1, 4, 3), torch.zeros(1, 4, dtype=torch.bool)
    swapped = features[:, [1, 0, 2, 3]]
    ends = [core(each, torch.zeros(1, core.state), first)[0][0, -1] for each in (features, swapped)]
    torch.testing.assert_close(*ends)
    torch.nn.init.normal_(core.layers[0].bias)
    ends = [core(each, torch.zeros(1, core.state), first)[0][0, -1] for each in (features, swapped)]
    assert not torch.allclose(*ends)


def test_a_transformer_without_sense_is_refused() -> None:
    with pytest.raises(MethodError, match="heads that divide hidden"):
        Transformer(hidden=6, heads=4)


def test_heads_start_nearly_uniform() -> None:
    torch.manual_seed(0)
    features = torch.randn(7, 3, 32)
    dist = PolicyHead(32, gym.spaces.Discrete(5))(features)
    assert isinstance(dist, Categorical)
    assert (dist.log_probs.exp() - 0.2).abs().max() < 0.02
    gaussian = PolicyHead(32, gym.spaces.Box(-1, 1, (2,), np.float32), log_std=-0.5)(features)
    assert isinstance(gaussian, DiagonalGaussian)
    assert gaussian.mean.abs().max() < 0.1
    assert (gaussian.log_std == -0.5).all()
    assert ValueHead(32)(features).shape == (7, 3)


def test_log_std_learns() -> None:
    head = PolicyHead(4, gym.spaces.Box(-1, 1, (2,), np.float32))
    head(torch.randn(3, 4)).entropy().sum().backward()
    assert (head.log_std.grad == 3).all()
