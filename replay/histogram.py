"""Counts of numbers between evenly spaced edges, where these are all but the same, too."""

import numpy as np

ALIKE = 1e-9
"""Share of their size by which numbers must differ for bins between them: of fewer bits numpy refuses to make any."""


def histogram(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts (bins,) and edges (bins + 1,) of finite numbers (n,), n > 0."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high), 1e-100)
    if high - low <= ALIKE * size:
        around = max(0.5, 1000 * ALIKE * size)
        low, high = low - around, high + around
    return np.histogram(values.astype(np.float64), bins=bins, range=(low, high))
