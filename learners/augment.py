"""Image augmentations: one offset per stack of frames, another for every stack of a batch."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

Frames = Shaped[Tensor, "n C H W"]


@runtime_checkable
class Augmentation(Protocol):
    """Changes images in a way that keeps what they show."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Other frames (n, C, H, W) of the same dtype, from torch's global generator."""
        ...


@dataclass(frozen=True)
class RandomShift:
    """`random_shift` as a value.

    Attributes:
        pad: the largest move, in pixels.
    """

    pad: int = 4

    def __call__(self, frames: Tensor) -> Tensor:
        """Shifted frames."""
        return random_shift(frames, self.pad)


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
