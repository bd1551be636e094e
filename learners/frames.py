"""Frame stacks, built by one rule on both sides: by the policy as it acts, by the learner from single stored frames.

The stack at a row holds the row's frame and the ones before it in the same episode, oldest first; where the episode is
younger than the stack is deep, its first frame is repeated. Frames are stored once; the learner finds an episode's
start from the `step` column, the policy from the `first` flags, and both give the same bytes.
"""

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from learners.objective import MethodError
from replay.schema import Column


def is_image(column: Column) -> bool:
    """Whether an observation column holds frames: bytes of shape (H, W), (H, W, C) or (C, H, W)."""
    return column.dtype == "uint8" and len(column.shape) in (2, 3)


def stacked_column(column: Column, stack: int) -> Column:
    """What an image column looks like to an encoder: (stack * C, H, W)."""
    channels, height, width = _planes(np.empty((1, *column.shape), np.uint8)).shape[1:]
    return Column(column.dtype, (stack * channels, height, width))


def cropped_column(column: Column, side: int) -> Column:
    """What a stacked image column looks like once a square of `side` pixels is cut out."""
    planes, height, width = column.shape
    if side > min(height, width):
        raise MethodError(f"crop is {side}, and the images are {height}x{width}: choose a smaller one, or 0")
    return Column(column.dtype, (planes, side, side))


def _planes(frames: np.ndarray) -> np.ndarray:
    """Frames (n, H, W), (n, H, W, C) or (n, C, H, W) as planes (n, C, H, W). At most four channels come last."""
    if frames.ndim == 3:
        return frames[:, None]
    return np.moveaxis(frames, -1, 1) if frames.shape[-1] <= 4 else frames


class FrameStack:
    """The last frames of n streams: what a policy remembers in order to see stacks."""

    def __init__(self, stack: int) -> None:
        self.stack = stack
        self.frames = np.empty(0, np.uint8)

    def push(self, frames: np.ndarray, first: Bool[np.ndarray, " n"]) -> Shaped[np.ndarray, "n planes height width"]:
        """Add each stream's newest frame and return the stacks; a stream whose flag `first` is set starts anew."""
        planes = _planes(frames)
        if self.stack == 1:
            return np.ascontiguousarray(planes)
        if self.frames.shape[:1] != planes.shape[:1]:
            self.frames = np.repeat(planes[:, None], self.stack, axis=1)
        self.frames[:, :-1] = self.frames[:, 1:]
        self.frames[:, -1] = planes
        self.frames[first] = planes[first, None]
        return self.frames.reshape(len(planes), -1, *planes.shape[2:])


def stack_windows(
    frames: Shaped[Tensor, "B rows ..."], step: Int[Tensor, "B rows"], *, stack: int, lead: int
) -> Shaped[Tensor, "B T planes height width"]:
    """The stacks of a batch's rows after the first `lead`, from single frames.

    Args:
        frames: single frames of lead + T consecutive rows, on any device.
        step: each row's index inside its episode.
        stack: depth; the window must come with `lead >= stack - 1` rows of context.
        lead: rows of context before the window.
    """
    batch, rows = step.shape
    if lead < stack - 1:
        raise MethodError(f"a stack of {stack} frames needs {stack - 1} lead rows, the table gives {lead}")
    planes = frames if frames.ndim != 4 else frames.unsqueeze(2)
    planes = planes.movedim(-1, 2) if planes.shape[-1] <= 4 else planes
    if stack == 1:
        return planes[:, lead:].contiguous()
    time = torch.arange(lead, rows, device=step.device)[None, :, None]
    back = torch.arange(stack - 1, -1, -1, device=step.device)
    source = time - torch.minimum(back, step[:, lead:, None].long())
    source = source + torch.arange(batch, device=step.device)[:, None, None] * rows
    stacked = planes.flatten(0, 1).index_select(0, source.flatten())
    return stacked.view(batch, rows - lead, -1, *planes.shape[3:])
