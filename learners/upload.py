"""Copying batches to a learner's GPU while it computes."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Tensors = dict[str, dict[str, Tensor]]


class Upload:
    """Copies a batch to a device on a stream of its own: what `replay.sampler.Prefetch` does last, in its thread.

    Kernels of the present learner step go on meanwhile, since their stream does not wait for this one. When the call
    returns, the copy is complete, so the arrays may be filled again.

    Args:
        device: of the learner. A processor copies nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batches: Mapping[str, Mapping[str, np.ndarray]]) -> Tensors:
        """The batches' columns as tensors, by table."""
        with torch.cuda.stream(self._stream):  # without one: a context that does nothing
            moved = {table: moved_to(self._device, columns) for table, columns in batches.items()}
        if self._stream is not None:
            self._stream.synchronize()
        return moved


def moved_to(device: torch.device, columns: Mapping[str, np.ndarray | Tensor]) -> dict[str, Tensor]:
    """Columns as tensors on a device; those that are there already as they are.

    From page-locked memory the copies are only begun: work that is given to the same stream waits for them.
    """
    moved = {}
    for name, column in columns.items():
        if isinstance(column, Tensor):
            if column.is_cuda:  # it was made on another stream, whose next copy must not take its memory too early
                column.record_stream(torch.cuda.current_stream(device))
            moved[name] = column
        else:
            moved[name] = torch.from_numpy(column).to(device, non_blocking=True)
    return moved
