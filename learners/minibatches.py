"""How a batch is split into minibatches: by rows in random order, or by whole windows."""

from collections.abc import Iterator

import torch
from torch import Tensor

from learners.objective import Batch


class Rows:
    """A batch's decided rows, single.

    Args:
        batch: windows (B, T, ...); columns of one entry per window are left out.
    """

    def __init__(self, batch: Batch) -> None:
        flat = {name: column.flatten(0, 1) for name, column in batch.items() if column.ndim > 1}
        self._decided = flat["mask"].nonzero().flatten()
        self._others = {name: column for name, column in flat.items() if column.ndim > 1}
        # A batch has a dozen columns of one number per row: side by side, all are picked in the time of one.
        kinds: dict[torch.dtype, list[str]] = {}
        for name, column in flat.items():
            if column.ndim == 1:
                kinds.setdefault(column.dtype, []).append(name)
        self._numbers = [(names, torch.stack([flat[name] for name in names])) for names in kinds.values()]
        self._whole: Batch | None = None

    def shuffled(self, parts: int) -> Iterator[Batch]:
        """All of them in random order, as `parts` batches of shape (n, 1, ...); one part in their own."""
        if parts == 1:  # nothing depends on the order, and to pick rows takes a tenth of a small network's minibatch
            self._whole = self._whole or self._picked(self._decided)
            yield self._whole
            return
        order = self._decided[torch.randperm(len(self._decided), device=self._decided.device)]
        for rows in order.tensor_split(parts):
            yield self._picked(rows)

    def _picked(self, rows: Tensor) -> Batch:
        picked = {name: column.index_select(0, rows).unsqueeze(1) for name, column in self._others.items()}
        for names, columns in self._numbers:
            picked |= zip(names, columns.index_select(1, rows).unsqueeze(2).unbind(), strict=True)
        return picked


class Windows:
    """A batch's windows, whole: for recurrent models, and objectives that look along time.

    Args:
        batch: windows (B, T, ...).
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def shuffled(self, parts: int) -> Iterator[Batch]:
        """All of them in random order, as `parts` batches of shape (windows / parts, T, ...)."""
        order = torch.randperm(len(self._batch["mask"]), device=self._batch["mask"].device)
        for windows in order.tensor_split(parts):
            yield {name: column.index_select(0, windows) for name, column in self._batch.items()}
