"""Augmentations against padding and cropping one stack at a time."""

import time

import numpy as np
import pytest
import torch

from learners.augment import RandomShift, centre_crop, random_crop, random_shift


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
        begin = time.perf_counter()
        random_shift(frames, 4)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.03, "3 ms on an idle core"
