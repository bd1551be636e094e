"""The weight channel of a run in one process, without Ray."""

import numpy as np

Weights = dict[str, np.ndarray]


class LocalWeights:
    """The channel inside one process: publishing replaces, reading never waits.

    The loop takes turns, so the version that a reader asks for has been published before it asks.
    """

    def __init__(self) -> None:
        self._newest: tuple[int, Weights] | None = None

    def publish(self, version: int, weights: Weights) -> None:
        """Replace what there was."""
        self._newest = version, weights

    def read(self, *, have: int, at_least: int) -> tuple[int, Weights] | None:
        """The newest version, or None if the reader has it."""
        newest = self._newest
        if newest is None or newest[0] < at_least:
            raise RuntimeError(f"weights of version {at_least} were asked for before they were published")
        return newest if newest[0] > have else None
