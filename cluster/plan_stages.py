"""What metrics of stages tell: how long blocks and learner steps take by themselves, and how evenly."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

LEAST = 4
"""Numbers that a spread is told of."""
WAITING = ("wait", "room", "between")
"""Stages in which a process waits for others."""


def stage_seconds(values: Mapping[str, int | float], kind: str) -> float:
    """Seconds that a block or a learner step took, without those in which it waited for others.

    Args:
        values: by tag.
        kind: "actor" or "learner".
    """
    waiting = {f"time/{kind}_{stage}" for stage in WAITING}
    return sum(value for tag, value in values.items() if tag.startswith(f"time/{kind}_") and tag not in waiting)


def spread(values: Sequence[float]) -> float:
    """Standard deviation over the median of numbers among which some are far off: from the middle half of them."""
    if len(values) < LEAST:
        return 0.0
    low, high = np.percentile(values, [25, 75])
    return float((high - low) / 1.349 / median(values))
