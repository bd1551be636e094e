"""Augmentations against padding and cropping one stack at a time."""

import time

import numpy as np
import pytest
import torch

from learners.augment import (
    Augmentation,
    Chain,
    ColourJitter,
    GaussianNoise,
    RandomCrop,
    RandomShift,
    augmented,
    centre_crop,
    colour_jitter,
    gaussian_noise,
    random_crop,
    random_shift,
)


def stacks(n: int = 64, channels: int = 3, height: int = 10, width: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, height, width), generator=generator, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_shifts(stack: torch.Tensor, pad: int) -> dict[bytes, tuple[int, int]]:
    padded = np.pad(stack.numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    _, height, width = stack.shape
    return {
        padded[:, y : y + height, x : x + width].tobytes(): (y, x)
        for y in range(2 * pad + 1)
        for x in range(2 * pad + 1)
    }


def test_every_stack_is_one_of_its_own_shifts_and_all_shifts_occur() -> None:
    frames = stacks(1)[0].expand(600, -1, -1, -1)
    allowed = all_shifts(frames[0], 2)
    seen = [allowed[moved.numpy().tobytes()] for moved in random_shift(frames, 2, generator())]
    assert set(seen) == set(allowed.values()), "an offset never occurs"
    assert max(seen.count(offset) for offset in allowed.values()) < 60, "24 expected"


def test_shift_of_different_stacks() -> None:
    frames = stacks()
    moved = random_shift(frames, 3, generator())
    offsets = [all_shifts(stack, 3)[result.numpy().tobytes()] for stack, result in zip(frames, moved, strict=True)]
    assert len(set(offsets)) > 10, "stacks move together"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_keeps_dtype_and_shape_of_any_layout(dtype: torch.dtype) -> None:
    frames = stacks().to(dtype)
    for layout in (frames, frames.to(memory_format=torch.channels_last), frames[1:, :, :, 1:]):
        moved = random_shift(layout, 4, generator(1))
        assert moved.dtype == dtype
        assert moved.shape == layout.shape
        assert torch.equal(moved, random_shift(layout.contiguous(), 4, generator(1)))


def test_pad_zero_changes_nothing_and_seeds_repeat() -> None:
    frames = stacks()
    assert torch.equal(random_shift(frames, 0, generator()), frames)
    assert torch.equal(random_shift(frames, 3, generator(5)), random_shift(frames, 3, generator(5)))
    assert not torch.equal(random_shift(frames, 3, generator(5)), random_shift(frames, 3, generator(6)))
    torch.manual_seed(0)
    first = RandomShift(3)(frames)
    torch.manual_seed(0)
    assert torch.equal(first, random_shift(frames, 3))


def test_crop_reaches_every_offset() -> None:
    frames = torch.arange(30, dtype=torch.int64).view(1, 1, 5, 6).expand(400, 2, 5, 6)
    cut = random_crop(frames, 4, generator())
    assert cut.shape == (400, 2, 4, 4)
    assert torch.equal(cut[:, 0], cut[:, 1]), "the frames of a stack are cut differently"
    corners = {(int(v) // 6, int(v) % 6) for v in cut[:, 0, 0, 0]}
    assert corners == {(y, x) for y in range(2) for x in range(3)}
    relative = cut - cut[:, :, :1, :1]
    assert torch.equal(relative, relative[:1].expand_as(relative))


def test_centre_crop() -> None:
    frames = stacks()
    assert torch.equal(centre_crop(frames, 8), frames[:, :, 1:9, 2:10])


@pytest.mark.parametrize("crop", [random_crop, centre_crop])
def test_a_crop_larger_than_the_frames_is_refused(crop: object) -> None:
    with pytest.raises(ValueError, match="11x11 pixels does not fit frames of 10x12"):
        crop(stacks(), 11)


def test_shift_of_an_atari_minibatch_is_fast() -> None:
    frames, seconds = stacks(256, 4, 84, 84), []
    for _ in range(10):
        begin = time.process_time()
        random_shift(frames, 4)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.03, "3 ms of a core"


@pytest.mark.parametrize(
    "augment",
    [RandomShift(2), RandomCrop(8), GaussianNoise(0.5), ColourJitter(), Chain((RandomShift(2), GaussianNoise()))],
)
def test_augmentations_are_values_that_follow_the_global_generator(augment: Augmentation) -> None:
    frames = stacks()
    torch.manual_seed(0)
    first, second = augment(frames), augment(frames)
    torch.manual_seed(0)
    assert torch.equal(first, augment(frames))
    assert not torch.equal(first, second)
    assert first.dtype == frames.dtype
    assert len(first) == len(frames)
    assert isinstance(augment, Augmentation)


def test_noise_is_measured_in_each_number_s_own_deviation() -> None:
    rows = torch.randn(20_000, 3, generator=generator()) * torch.tensor([1e-3, 1.0, 0.0]) + torch.tensor(
        [5.0, -1e3, 7.0]
    )
    noise = gaussian_noise(rows, 0.1, generator(1)) - rows
    torch.testing.assert_close(noise.std(0), torch.tensor([1e-4, 0.1, 0.0]), rtol=0.03, atol=1e-9)
    assert abs(float(noise[:, 1].mean())) < 0.003


def test_noise_on_images_stays_within_bytes() -> None:
    frames = stacks(256)
    noisy = gaussian_noise(frames, 0.1, generator())
    assert noisy.dtype == torch.uint8
    change = noisy.float() - frames.float()
    assert change.abs().max() < 60, "it does not wrap around"
    assert float(change.std()) == pytest.approx(0.1 * 74, rel=0.1)


def rgb(n: int = 5, stack: int = 2) -> torch.Tensor:
    return torch.rand(n, 3 * stack, 6, 7, generator=generator())


def test_colour_jitter_of_no_size_changes_nothing() -> None:
    frames = rgb()
    same = colour_jitter(frames, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    torch.testing.assert_close(same, frames, atol=1e-3, rtol=0)


def test_colours_change_by_what_they_are_called() -> None:
    frames = 0.25 + 0.3 * rgb(200)
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    ratio = colour_jitter(frames, **still | {"brightness": 0.3}, generator=generator(1)) / frames
    assert (ratio.amax((1, 2, 3)) - ratio.amin((1, 2, 3))).max() < 1e-2, "one factor for an image"
    factors = ratio.mean((1, 2, 3))
    assert 0.69 < factors.min() < 0.75
    assert 1.25 < factors.max() < 1.31
    other = colour_jitter(frames, **still | {"contrast": 0.3}, generator=generator(1))
    torch.testing.assert_close(other.mean((1, 2, 3)), frames.mean((1, 2, 3)), atol=1e-3, rtol=0)
    for name in ("saturation", "hue"):
        other = colour_jitter(frames, **still | {name: 0.4}, generator=generator(1))
        weight = torch.tensor([0.299, 0.587, 0.114])
        light = [(each.view(200, 2, 3, 6, 7) * weight[:, None, None]).sum(2) for each in (frames, other)]
        torch.testing.assert_close(*light, atol=2e-3, rtol=0, msg=f"{name} changes brightness")
        assert (other - frames).abs().max() > 0.02


def test_grey_stays_grey_whatever_the_colours_do() -> None:
    grey = torch.rand(8, 1, 6, 7, generator=generator()).expand(-1, 3, -1, -1)
    other = ColourJitter(brightness=0.0, contrast=0.0)(grey)
    torch.testing.assert_close(other, grey, atol=2e-3, rtol=0)


def test_a_stack_changes_colour_together() -> None:
    one = rgb(64, stack=1)
    pair = ColourJitter()(torch.cat([one, one], 1))
    assert torch.equal(pair[:, :3], pair[:, 3:])
    assert len({round(float(each), 3) for each in (pair[:, :3] - one).abs().mean((1, 2, 3))}) > 20


def test_colour_needs_colours() -> None:
    with pytest.raises(ValueError, match="3 channels each; got stacks of 4"):
        ColourJitter()(stacks(2, channels=4))


def test_what_an_augmentation_changes_of_an_observation() -> None:
    columns = {"camera": stacks(), "speed": torch.randn(64, 2), "task": torch.arange(64)}
    assert set(augmented(RandomShift(2), columns, ["camera"])) == {"camera"}
    assert set(augmented(GaussianNoise(), columns, ["camera"])) == {"camera", "speed"}
    assert set(augmented(Chain((GaussianNoise(), RandomShift(2))), columns, ["camera"])) == {"camera"}
