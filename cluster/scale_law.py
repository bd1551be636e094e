"""The universal scalability law: how a speed grows with the number of processes, and where it stops growing.

X(N) = rate N / (1 + contention (N - 1) + coherence N (N - 1)) (Gunther, "Guerrilla Capacity Planning", 2007).
Contention is what only one can do at a time; coherence is what each has to do with every other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 3
"""Numbers of processes that a law of three parameters wants."""
NOTHING = 1e-9
"""Shares below this are rounding."""


@dataclass(frozen=True)
class Law:
    """A speed as a function of the number of processes.

    Attributes:
        rate: of one process, in what is counted a second.
        contention: sigma, at least 0.
        coherence: kappa, at least 0.
        error: mean over the points of the relative distance from the law.
        points: numbers of processes that it was fitted to.
        most: the largest of them.
    """

    rate: float
    contention: float
    coherence: float
    error: float
    points: int
    most: float

    def __call__(self, count: int | float) -> float:
        """Speed of so many processes."""
        return self.rate * count / (1 + self.contention * (count - 1) + self.coherence * count * (count - 1))

    @property
    def knee(self) -> float:
        """The number of processes beyond which more are slower; infinite where the speed grows for ever."""
        if self.coherence <= NOTHING:
            return math.inf if self.contention < 1 else 1.0
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherence))

    @property
    def limit(self) -> float:
        """The speed that no number of processes exceeds."""
        if math.isfinite(self.knee):
            return self(self.knee)
        return self.rate / self.contention if self.contention > NOTHING else math.inf

    def said(self, what: str) -> str:
        """What it says of more processes.

        Args:
            what: they are, in the plural.
        """
        fitted = (
            f"X(N) = {self.rate:,.0f} N / (1 + {self.contention:.3g} (N - 1) + {self.coherence:.3g} N (N - 1)), "
            f"off by {self.error:.1%} in the mean"
        )
        few = "; through three points it goes whatever they are" if self.points == LEAST else ""
        return f"{fitted}{few}: {self._knee_said(what)}"

    def _knee_said(self, what: str) -> str:
        if math.isfinite(self.knee):
            beyond = f", beyond the {self.most:g} that were measured" if self.knee > self.most else ""
            return f"the knee is at {self.knee:.1f} {what}{beyond}, with {self(self.knee):,.0f} env steps/s"
        if math.isfinite(self.limit):
            return f"no knee is seen; however many {what}, it stays below {self.limit:,.0f} env steps/s"
        return f"no knee is seen up to {self.most:g} {what}"


def fitted(counts: Sequence[int | float], speeds: Sequence[float]) -> Law | None:
    """The law nearest to speeds, by least squares of the relative distances, with no parameter below 0.

    N / X(N) is linear in (1, contention, coherence) / rate, so of the four sets of parameters that may be 0 each has
    its solution at once, and the best of those that are possible is the solution.

    Args:
        counts: of processes, positive.
        speeds: that were measured, positive.

    Returns:
        None with fewer than three different counts: it cannot be told.
    """
    if len(set(counts)) < LEAST:
        return None
    n, x = np.asarray(counts, float), np.asarray(speeds, float)
    columns = np.stack([np.ones_like(n), n - 1, n * (n - 1)], axis=1) * (x / n)[:, None]
    best, least = np.zeros(3), math.inf
    for free in ([0], [0, 1], [0, 2], [0, 1, 2]):
        found = np.zeros(3)
        found[free] = np.linalg.lstsq(columns[:, free], np.ones_like(n), rcond=None)[0]
        distance = float(np.square(columns @ found - 1).sum())
        if found[0] > 0 and (found >= 0).all() and distance < least:
            best, least = found, distance
    law = Law(1 / best[0], best[1] / best[0], best[2] / best[0], 0.0, len(set(counts)), float(n.max()))
    error = float(np.mean([abs(law(count) / speed - 1) for count, speed in zip(n, x, strict=True)]))
    return Law(law.rate, law.contention, law.coherence, error, law.points, law.most)
