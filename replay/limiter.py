"""A limiter: how far drawing may run ahead of writing in one table, and writing ahead of drawing."""

from replay.table import Table, TableError


class Limiter:
    """Keeps a table's ratio of windows drawn to windows inserted, in one of several shards.

    The balance is what inserted windows still allow to be drawn: `samples_per_insert` for each one beyond the minimum,
    less one for each drawn. Draws wait while it would fall below -tolerance; actors wait while it is above tolerance.
    Another ratio takes effect from the moment when it is set: what was before does not count towards it.

    Attributes:
        least: windows that must be held before a draw.

    Raises:
        TableError: the table can never keep its ratio.
    """

    def __init__(self, table: Table, *, shards: int) -> None:
        self.least = 0
        self.ratio: float | None = None
        self._balance = 0.0
        self.change(table, shards=shards, held=0)

    def change(self, table: Table, *, shards: int, held: int) -> None:
        """Follow another table's numbers from now on; so many windows are held."""
        check_ratio(table)
        # Apart from what the minimum still lacks, which nobody may draw for.
        even = self._balance + (self.ratio or 0.0) * max(0, self.least - held)
        # A priority can be drawn twice in a batch, but not before the batch's windows are there.
        self.least = -(-max(table.min_windows, table.batch_windows) // shards)
        self.ratio, self.tolerance = table.samples_per_insert, table.slack / shards
        even = max(-self.tolerance, min(even, self.tolerance))
        self._balance = 0.0 if self.ratio is None else even - self.ratio * max(0, self.least - held)

    @property
    def balance(self) -> float:
        """Windows that may be drawn until the ratio is even; 0 where there is no rule."""
        return self._balance

    def inserted(self, count: int) -> None:
        """Take note of windows that came in."""
        if self.ratio is not None:
            self._balance += self.ratio * count

    def drawn(self, count: int) -> None:
        """Take note of windows that were drawn."""
        if self.ratio is not None:
            self._balance -= count

    def missing(self, count: int, held: int) -> str:
        """Why `count` windows cannot be drawn now, of `held`; "" when they can."""
        if held < self.least:
            return f"holds {held} of {self.least} windows"
        if self.ratio is not None and self._balance - count < -self.tolerance:
            allowed = max(0, int(self._balance + self.tolerance))
            rule = f"samples_per_insert {self.ratio:g} with a tolerance of {self.tolerance:g}"
            return f"gives {allowed} windows by {rule}, and a draw takes {count}"
        return ""

    def ahead(self) -> bool:
        """Whether more windows came in than the ratio wants."""
        return self.ratio is not None and self._balance > self.tolerance


def check_ratio(table: Table) -> None:
    """Refuse a ratio that would keep everybody waiting.

    Raises:
        TableError: says why.
    """
    ratio, reads = table.samples_per_insert, table.read_limit
    if ratio is None or not reads:
        return
    if table.removal == "wait":
        text = f"samples_per_insert is {ratio:g}: every window is drawn {reads} times where actors wait for that;"
        raise TableError(f"{text} leave it None, or remove by kind")
    if ratio > reads:
        raise TableError(f"samples_per_insert is {ratio:g}, and reads {reads}: a window can be drawn no more often")
