"""Draws that take from all streams alike."""

import numpy as np


class Even:
    """How many windows a table holds of each source, and which of them a draw takes: no more than so many of each.

    Args:
        most: windows of one source that a draw takes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts = np.zeros(0, np.int64)

    @property
    def available(self) -> int:
        """Windows that one draw could take."""
        return int(self._counts.clip(max=self.most).sum())

    def count(self, sources: np.ndarray, change: int) -> None:
        """Take note of windows that came (1) or left (-1), by their sources (n,)."""
        lacking = int(sources.max(initial=-1)) + 1 - len(self._counts)
        self._counts = np.pad(self._counts, (0, max(0, lacking)))
        np.add.at(self._counts, sources, change)

    def first(self, sources: np.ndarray, count: int) -> np.ndarray:
        """The places of the first `count` windows that a draw may take, of windows in order (n,)."""
        order = np.argsort(sources, kind="stable")
        grouped = sources[order]
        earlier = np.empty(len(sources), np.int64)  # of the same source
        earlier[order] = np.arange(len(sources)) - np.searchsorted(grouped, grouped)
        return np.flatnonzero(earlier < self.most)[:count]
