"""Tables: ways of reading the store."""

from dataclasses import dataclass
from typing import Literal


class TableError(ValueError):
    """A table that cannot be served."""


@dataclass(frozen=True)
class Table:
    """One way of reading the store; all tables of a shard refer to the same rows.

    A "fifo" table hands every window out once, oldest first, and makes actors wait when it is
    full: on-policy learning. A "uniform" table hands out random windows of the newest
    `capacity`, again and again: replay.

    Args:
        batch: items that one learner step draws, over all shards and ranks.
        window: rows of an item.
        lead: rows of context in front of the window (frame stacks, recurrent burn-in), mask 0.
        stride: rows from the start of one window of a stream to the start of the next. None:
            `window` for fifo, 1 for uniform. In a fifo table rows at or beyond the stride belong
            to the next window and have mask 0 in this one; window T+1 with stride T is PPO's,
            whose last row is there for its observation.
        select: "fifo" or "uniform".
        capacity: windows held, over all shards. None: 2 * batch for fifo, 100,000 for uniform.
        min_items: windows that must be held before the first draw. None: `batch`.
        max_lag: (fifo) how many versions the rows of one window may span; 0: one version only.
            Rows of a window that can no longer be completed so are dropped. None: no bound.

    Raises:
        TableError: a number is out of range; says which and what was wanted.
    """

    batch: int
    window: int = 1
    lead: int = 0
    stride: int | None = None
    select: Literal["fifo", "uniform"] = "fifo"
    capacity: int | None = None
    min_items: int | None = None
    max_lag: int | None = None

    def __post_init__(self) -> None:
        if self.select not in ("fifo", "uniform"):
            raise TableError(f'select {self.select!r}: wanted "fifo" or "uniform"')
        for name, least in (("batch", 1), ("window", 1), ("lead", 0), ("stride", 1), ("max_lag", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise TableError(f"{name} is {value}: wanted at least {least}")
        if self.max_lag is not None and not self.reads_once:
            raise TableError(f"max_lag is {self.max_lag} on a uniform table: only fifo tables bound it; leave it None")
        if self.min_windows < self.batch:
            raise TableError(f"min_items is {self.min_items}: a draw takes batch = {self.batch} windows, all different")
        if self.capacity_windows < self.min_windows:
            wanted = f"the {self.min_windows} windows that a draw waits for"
            raise TableError(f"capacity is {self.capacity_windows}: it must hold {wanted}")

    @property
    def reads_once(self) -> bool:
        """Whether a window leaves when it is drawn."""
        return self.select == "fifo"

    @property
    def stride_rows(self) -> int:
        """Rows from one start to the next."""
        if self.stride is not None:
            return self.stride
        return self.window if self.reads_once else 1

    @property
    def capacity_windows(self) -> int:
        """Windows held over all shards."""
        if self.capacity is not None:
            return self.capacity
        return 2 * self.batch if self.reads_once else max(100_000, self.min_windows)

    @property
    def min_windows(self) -> int:
        """Windows over all shards that a draw waits for."""
        return self.batch if self.min_items is None else self.min_items

    @property
    def owned_rows(self) -> int:
        """Leading rows of a window whose decisions this window may train on."""
        return min(self.window, self.stride_rows) if self.reads_once else self.window
