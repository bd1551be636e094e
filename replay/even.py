"""Draws that take from all streams alike."""

import numpy as np


class Even:
    """How many windows a table holds of each stream, and which of them a draw takes: no more than so many of each.

    By stream and not by source: where a writer was replaced, windows of both are the stream's, one after another.

    Args:
        most: windows of one stream that a draw takes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._counts = np.zeros(0, np.int64)
        self._places: dict[int, int] = {}  # of each stream's count; ids may be any numbers

    @property
    def available(self) -> int:
        """Windows that one draw could take."""
        return int(self._counts.clip(max=self.most).sum())

    def count(self, streams: np.ndarray, change: int) -> None:
        """Take note of windows that came (1) or left (-1), by their streams (n,)."""
        places = [self._places.setdefault(stream, len(self._places)) for stream in streams.tolist()]
        self._counts = np.pad(self._counts, (0, len(self._places) - len(self._counts)))
        np.add.at(self._counts, places, change)

    def first(self, streams: np.ndarray, count: int) -> np.ndarray:
        """The places of the first `count` windows that a draw may take, by the streams of windows in order (n,)."""
        order = np.argsort(streams, kind="stable")
        grouped = streams[order]
        earlier = np.empty(len(streams), np.int64)  # of the same stream
        earlier[order] = np.arange(len(streams)) - np.searchsorted(grouped, grouped)
        return np.flatnonzero(earlier < self.most)[:count]
