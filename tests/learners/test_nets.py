"""Encoders on every kind of observation, cores across episode ends, heads' initialisation."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners.distributions import Categorical, DiagonalGaussian
from learners.nets.cores import Gru, GruCore
from learners.nets.encoders import EncoderError, Mlp, Nature, SmallConv
from learners.nets.heads import PolicyHead, ValueHead
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
    expected = encoder.norm(encoder.linear(encoder.layers(frames.float() / 255).flatten(1))).relu()
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


def test_gru_forgets_at_an_episode_start_and_only_there() -> None:
    core = Gru(8).build(3)
    features, first = torch.randn(2, 6, 3), torch.zeros(2, 6, dtype=torch.bool)
    first[1, 3] = True
    changed = features.clone()
    changed[:, 1] += 1
    before, after = (core(each, torch.zeros(2, 8), first)[0] for each in (features, changed))
    assert not torch.allclose(before[0, 5], after[0, 5])
    assert torch.equal(before[1, 3:], after[1, 3:])
    assert not torch.allclose(before[1, 2], after[1, 2])


def test_a_window_cut_in_two_equals_the_whole() -> None:
    core, features = Gru(8).build(3), torch.randn(2, 6, 3)
    first, state = torch.zeros(2, 6, dtype=torch.bool), torch.randn(2, 8)
    whole, last = core(features, state, first)
    head, middle = core(features[:, :2], state, first[:, :2])
    tail, end = core(features[:, 2:], middle, first[:, 2:])
    torch.testing.assert_close(torch.cat([head, tail], 1), whole)
    torch.testing.assert_close(end, last)


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
