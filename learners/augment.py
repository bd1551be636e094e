"""Augmentations, made where the batch is: other observations that mean the same, another change for every row."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

Frames = Shaped[Tensor, "n C H W"]


@runtime_checkable
class Augmentation(Protocol):
    """Changes observations in a way that keeps what they mean."""

    @property
    def images(self) -> bool:
        """Whether it is for stacks of frames (n, C, H, W); else for any column of numbers, (n, ...)."""
        ...

    def __call__(self, rows: Tensor, /) -> Tensor:
        """Other rows (n, ...) of the same dtype, from torch's global generator."""
        ...


def augmented(augment: Augmentation, columns: Mapping[str, Tensor], images: Collection[str]) -> dict[str, Tensor]:
    """Those of an observation's columns (n, ...) that an augmentation changes, changed.

    Args:
        augment: for images, or for all columns but whole numbers, which are often names of things.
        columns: by name.
        images: which of them are stacks of frames.
    """
    numbers = [name for name, column in columns.items() if name in images or column.is_floating_point()]
    return {name: augment(columns[name]) for name in (images if augment.images else numbers)}


@dataclass(frozen=True)
class RandomShift:
    """`random_shift` as a value.

    Attributes:
        pad: the largest move, in pixels.
    """

    images: ClassVar[bool] = True
    pad: int = 4

    def __call__(self, frames: Tensor) -> Tensor:
        """Shifted frames."""
        return random_shift(frames, self.pad)


@dataclass(frozen=True)
class RandomCrop:
    """`random_crop` as a value, for a model with the same `crop`, which sees the middle of whole frames.

    Attributes:
        size: side of the square that is cut out, in pixels.
    """

    images: ClassVar[bool] = True
    size: int

    def __call__(self, frames: Tensor) -> Tensor:
        """Squares of the frames."""
        return random_crop(frames, self.size)


@dataclass(frozen=True)
class GaussianNoise:
    """`gaussian_noise` as a value, for vectors; images are rounded and stay within 0 to 255.

    Attributes:
        scale: in standard deviations of each number over the rows. It must not be small beside what tells rows apart,
            else the task is trivial.
    """

    images: ClassVar[bool] = False
    scale: float = 0.1

    def __call__(self, rows: Tensor) -> Tensor:
        """Noisy rows."""
        return gaussian_noise(rows, self.scale)


@dataclass(frozen=True)
class ColourJitter:
    """`colour_jitter` as a value, for RGB frames.

    Attributes:
        brightness: largest relative change of all channels.
        contrast: largest relative change of the distance from the image's mean.
        saturation: largest relative change of the distance from grey.
        hue: largest rotation of the colours, in turns.
    """

    images: ClassVar[bool] = True
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames in other colours."""
        return colour_jitter(
            frames, brightness=self.brightness, contrast=self.contrast, saturation=self.saturation, hue=self.hue
        )


@dataclass(frozen=True)
class Chain:
    """Augmentations one after another.

    Attributes:
        steps: in order. If one is for images, all are given images only.
    """

    steps: tuple[Augmentation, ...]

    @property
    def images(self) -> bool:
        """Whether one of them is for images."""
        return any(step.images for step in self.steps)

    def __call__(self, rows: Tensor) -> Tensor:
        """All of them applied."""
        for step in self.steps:
            rows = step(rows)
        return rows


def random_shift(frames: Frames, pad: int, generator: torch.Generator | None = None) -> Frames:
    """Frames moved by up to `pad` pixels along each axis, the edge's pixels repeated where nothing was seen.

    The same as padding by replication and cropping back to size at a uniform offset, both ends included.

    Args:
        frames: stacks of frames, of any dtype; a stack's frames move together.
        pad: the largest move, in pixels.
        generator: of the device of the frames; None: torch's global one, which a learner's checkpoint holds.

    Reference: Kostrikov et al., arXiv:2004.13649, section 3.1; Laskin et al., arXiv:2004.04136, for Atari.
    """
    n, _, height, width = frames.shape
    offset = torch.randint(0, 2 * pad + 1, (2, n), generator=generator, device=frames.device)
    left, right = (frames[..., edge, None].expand(*frames.shape[:-1], pad) for edge in (0, -1))
    rows = torch.arange(height, device=frames.device) + offset[0, :, None] - pad
    return _windows(torch.cat([left, frames, right], -1), rows.clamp(0, height - 1), offset[1], width)


def random_crop(frames: Frames, size: int, generator: torch.Generator | None = None) -> Shaped[Tensor, "n C size size"]:
    """Squares of `size` pixels cut out at a uniform offset, all offsets possible.

    Args:
        frames: stacks of frames, of any dtype; a stack's frames are cut alike.
        size: side of the result, in pixels.
        generator: of the device of the frames; None: torch's global one.

    Raises:
        ValueError: the frames are smaller than the cut; gives both sizes.
    """
    n, _, height, width = frames.shape
    _check_fits(height, width, size)
    top = torch.randint(0, height - size + 1, (n, 1), generator=generator, device=frames.device)
    left = torch.randint(0, width - size + 1, (n,), generator=generator, device=frames.device)
    return _windows(frames, torch.arange(size, device=frames.device) + top, left, size)


def centre_crop(frames: Frames, size: int) -> Shaped[Tensor, "n C size size"]:
    """The middle square of `size` pixels: what an evaluated policy sees if it learned on random crops.

    Raises:
        ValueError: the frames are smaller than the cut; gives both sizes.
    """
    height, width = frames.shape[-2:]
    _check_fits(height, width, size)
    top, left = (height - size) // 2, (width - size) // 2
    return frames[..., top : top + size, left : left + size]


def gaussian_noise(
    rows: Shaped[Tensor, "n ..."], scale: float, generator: torch.Generator | None = None
) -> Shaped[Tensor, "n ..."]:
    """Rows with independent noise of `scale` standard deviations of each number over the rows.

    That is noise of standard deviation `scale` on standardised numbers, whatever their units: a number that never
    changes stays as it is.

    Args:
        rows: any floats, or images of bytes.
        scale: in standard deviations.
        generator: of the device of the rows; None: torch's global one.
    """
    values = rows.float()
    noise = torch.randn(rows.shape, generator=generator, device=rows.device)
    noisy = values + scale * values.std(0, correction=0) * noise
    return noisy.to(rows.dtype) if rows.is_floating_point() else noisy.round().clamp(0, 255).to(rows.dtype)


def colour_jitter(
    frames: Frames,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    generator: torch.Generator | None = None,
) -> Frames:
    """RGB frames in other colours; a stack's frames change alike.

    Brightness, saturation and hue are one matrix on the three channels of each pixel, contrast moves it away from the
    image's mean: a single pass over the pixels. The hue turns in the chroma plane of YIQ, not in HSV.

    Args:
        frames: stacks of RGB frames, channels of one frame after another; bytes, or floats from 0 to 1.
        brightness: largest relative change.
        contrast: largest relative change.
        saturation: largest relative change.
        hue: largest rotation, in turns.
        generator: of the device of the frames; None: torch's global one.

    Raises:
        ValueError: the channels are not RGB; gives their number.
    """
    n, channels, height, width = frames.shape
    if channels % 3:
        raise ValueError(f"colour needs RGB frames, 3 channels each; got stacks of {channels}")
    change = 2 * torch.rand(4, n, 1, generator=generator, device=frames.device) - 1
    light, spread, strength = (
        1 + most * c for most, c in zip((brightness, contrast, saturation), change[:3], strict=True)
    )
    angle = 2 * math.pi * hue * change[3]
    cosine, sine = strength * angle.cos(), strength * angle.sin()
    zero = torch.zeros_like(cosine)
    chroma = torch.stack([torch.ones_like(zero), zero, zero, zero, cosine, -sine, zero, sine, cosine], -1)
    to_chroma, back = (torch.tensor(matrix, device=frames.device) for matrix in (YIQ, FROM_YIQ))
    colours = light[..., None] * (back @ chroma.view(n, 3, 3) @ to_chroma)
    pixels = frames.float().view(n, -1, 3, height * width)
    mixed = colours[:, None] @ pixels
    mean = mixed.mean((1, 2, 3), keepdim=True)
    changed = (mean + spread[..., None, None] * (mixed - mean)).view(frames.shape)
    if frames.is_floating_point():
        return changed.clamp(0, 1).to(frames.dtype)
    return changed.round().clamp(0, 255).to(frames.dtype)


YIQ = [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
"""Brightness and two axes of colour, of RGB (NTSC)."""
FROM_YIQ = torch.linalg.inv(torch.tensor(YIQ)).tolist()


def _windows(
    frames: Frames, rows: Int[Tensor, "n h"], left: Int[Tensor, " n"], width: int
) -> Shaped[Tensor, "n C h w"]:
    # A cut is, row by row, `width` neighbouring pixels: picking them as slices of the flat pixels copies whole rows and
    # was 4x faster than indexing an unfolded view, 15x faster than gathering pixel by pixel.
    n, channels, height, stride = frames.shape
    plane = torch.arange(n * channels, device=frames.device).view(n, channels, 1) * height
    starts = (plane + rows[:, None]) * stride + left[:, None, None]
    flat = frames.reshape(-1)
    slices = flat.as_strided((flat.numel() - width + 1, width), (1, 1), flat.storage_offset())
    return slices.index_select(0, starts.flatten()).view(n, channels, -1, width)


def _check_fits(height: int, width: int, size: int) -> None:
    if size > min(height, width):
        raise ValueError(f"a crop of {size}x{size} pixels does not fit frames of {height}x{width}")
