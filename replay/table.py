"""Tables: ways of reading the store."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Kind = Literal["fifo", "lifo", "uniform", "prioritised", "min", "max"]
KINDS: tuple[Kind, ...] = ("fifo", "lifo", "uniform", "prioritised", "min", "max")


LIMITS = ("min_items", "samples_per_insert", "tolerance")
"""Fields of a table that can be changed while it is in use."""


class TableError(ValueError):
    """A table that cannot be served."""


@dataclass(frozen=True)
class Table:
    """One way of reading the store; all tables of a shard refer to the same rows.

    Two settings make the usual ones. A "fifo" table hands every window out once, oldest first, and makes actors wait
    when it is full: on-policy learning. A "uniform" table hands out random windows of the newest `capacity`, again
    and again: replay.

    Args:
        batch: items that one learner step draws, over all shards and ranks.
        window: rows of a window.
        lead: rows of context in front of the window (frame stacks, recurrent burn-in), mask 0.
        stride: rows from the start of one window of a stream to the start of the next. None: `window` where windows
            are read once, else 1. In a table that reads once, rows at or beyond the stride belong to the next window
            and have mask 0 in this one; window T+1 with stride T is PPO's, whose last row is there for its observation.
        within: columns whose value may not change inside a window: ("episode",) keeps windows inside episodes, a
            column "task" inside tasks. Strides count from each change; what is too short for a window is left out.
        arity: windows of one item; 2 makes pairs. Batches then have the shape (B, arity, lead + window, ...).
        select: which windows a draw takes: the oldest ("fifo"), the newest ("lifo"), any with equal chance
            ("uniform") or by priority ("prioritised"), those of lowest ("min") or highest ("max") priority.
        exponent: (prioritised) a window's chance is in proportion to priority ** exponent.
        reads: how often a window may be drawn; 0: without bound. None: 1 for fifo and lifo, else 0.
        remove: which windows leave when the table is full, one of the kinds of `select`; "wait": none, actors wait
            until windows have been read `reads` times. None: "wait" where reads are bounded, else "fifo".
        capacity: windows held, over all shards. None: 2 * batch where actors wait, else 100,000.
        min_items: windows that must be held before the first draw. None: those of one batch.
        samples_per_insert: windows drawn for each one that came in; both sides wait for the other. None: no rule.
        tolerance: windows that the drawn ones may be ahead of or behind that ratio. None: twice a batch, or what
            `min_items` amount to, whichever is more.
        per_stream: (fifo) windows of one stream that a draw takes, at most: where that makes a batch, all streams are
            drawn from alike, whichever actor was faster. None: the oldest windows, whosever they are.
        max_lag: (read once) how many versions the rows of one window may span; 0: one version only. Rows of a window
            that can no longer be completed so are dropped. None: no bound.

    Raises:
        TableError: a number is out of range; says which and what was wanted.
    """

    batch: int
    window: int = 1
    lead: int = 0
    stride: int | None = None
    within: tuple[str, ...] = ()
    arity: int = 1
    select: Kind = "fifo"
    exponent: float = 1.0
    reads: int | None = None
    remove: Kind | Literal["wait"] | None = None
    capacity: int | None = None
    min_items: int | None = None
    samples_per_insert: float | None = None
    tolerance: float | None = None
    per_stream: int | None = None
    max_lag: int | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        self._check_numbers()
        if self.max_lag is not None and not self.reads_once:
            raise TableError(f"max_lag is {self.max_lag}: only tables that read once bound it; leave it None")
        if self.per_stream is not None and (self.select != "fifo" or self.per_stream < 1):
            raise TableError(f"per_stream is {self.per_stream}: wanted at least 1, and only fifo tables have it")
        if self.removal == "wait" and not self.read_limit:
            raise TableError(
                'remove "wait" with unbounded reads: nothing would ever leave; bound reads or remove by kind'
            )
        if self.min_windows < self.batch_windows and (self.read_limit or self.select != "prioritised"):
            wanted = f"a draw takes {self.batch_windows} windows, all different"
            raise TableError(f"min_items is {self.min_items}: {wanted}")
        if self.capacity_windows < self.min_windows:
            wanted = f"the {self.min_windows} windows that a draw waits for"
            raise TableError(f"capacity is {self.capacity_windows}: it must hold {wanted}")

    def _check_kinds(self) -> None:
        for name, value, kinds in (("select", self.select, KINDS), ("remove", self.removal, (*KINDS, "wait"))):
            if value not in kinds:
                raise TableError(f"{name} {value!r}: wanted one of {', '.join(kinds)}")

    def _check_numbers(self) -> None:
        least = {"batch": 1, "window": 1, "lead": 0, "stride": 1, "arity": 1, "reads": 0, "max_lag": 0, "exponent": 0}
        for name, bound in (least | {"min_items": 1, "tolerance": 0}).items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise TableError(f"{name} is {value}: wanted at least {bound}")
        if self.samples_per_insert is not None and not self.samples_per_insert > 0:
            raise TableError(f"samples_per_insert is {self.samples_per_insert}: wanted more than 0, or None (no rule)")

    def with_limits(self, limits: Mapping[str, Any]) -> "Table":
        """The same table with other `LIMITS`, fields that can be changed while it is in use.

        Raises:
            TableError: another field, or a number that is out of range.
        """
        if unknown := sorted(set(limits) - set(LIMITS)):
            raise TableError(
                f"{unknown[0]} cannot be changed while a table is in use; wanted one of {', '.join(LIMITS)}"
            )
        return replace(self, **limits)

    @property
    def read_limit(self) -> int:
        """How often a window may be drawn; 0: without bound."""
        if self.reads is not None:
            return self.reads
        return 1 if self.select in ("fifo", "lifo") else 0

    @property
    def reads_once(self) -> bool:
        """Whether a window leaves when it is drawn."""
        return self.read_limit == 1

    @property
    def removal(self) -> str:
        """What happens when the table is full: a kind of removal, or "wait"."""
        return self.remove or ("wait" if self.read_limit else "fifo")

    @property
    def steady(self) -> bool:
        """Whether a draw changes nothing that the next one finds, so that several can be chosen together."""
        return not self.read_limit and self.samples_per_insert is None and self.select != "fifo"

    @property
    def by_priority(self) -> bool:
        """Whether priorities decide what is drawn or what leaves."""
        return not {self.select, self.removal}.isdisjoint(("prioritised", "min", "max"))

    @property
    def stride_rows(self) -> int:
        """Rows from one start to the next."""
        if self.stride is not None:
            return self.stride
        return self.window if self.reads_once else 1

    @property
    def batch_windows(self) -> int:
        """Windows of one batch."""
        return self.batch * self.arity

    @property
    def capacity_windows(self) -> int:
        """Windows held over all shards."""
        if self.capacity is not None:
            return self.capacity
        return 2 * self.batch_windows if self.removal == "wait" else max(100_000, self.min_windows)

    @property
    def min_windows(self) -> int:
        """Windows over all shards that a draw waits for."""
        return self.batch_windows if self.min_items is None else self.min_items

    @property
    def slack(self) -> float:
        """Windows that the drawn ones may be off the ratio to those that came in."""
        if self.tolerance is not None:
            return self.tolerance
        return max(2.0 * self.batch_windows, (self.samples_per_insert or 0.0) * self.min_windows)

    @property
    def owned_rows(self) -> int:
        """Leading rows of a window whose decisions this window may train on."""
        return min(self.window, self.stride_rows) if self.reads_once else self.window


def watched(tables: Mapping[str, Table]) -> tuple[str, ...]:
    """The columns whose changes some table's windows may not cross."""
    return tuple(sorted({column for table in tables.values() for column in table.within}))
