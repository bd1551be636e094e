"""The scalability law: it finds what was planted, and says when it cannot tell."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from cluster.scale_law import Law, fitted


def law_of(rate: float, contention: float, coherence: float) -> Law:
    return Law(rate, contention, coherence, 0.0, 0, 1.0)


@given(
    rate=some.floats(1.0, 1e6),
    contention=some.one_of(some.just(0.0), some.floats(1e-3, 0.9)),
    coherence=some.one_of(some.just(0.0), some.floats(1e-4, 0.1)),
    counts=some.sets(some.integers(1, 64), min_size=4, max_size=8),
)
def test_what_was_planted_is_found(rate: float, contention: float, coherence: float, counts: set[int]) -> None:
    planted = law_of(rate, contention, coherence)
    found = fitted(sorted(counts), [planted(count) for count in sorted(counts)])
    assert found is not None and found.error < 1e-6
    assert found.rate == pytest.approx(rate, rel=1e-4)
    assert found.contention == pytest.approx(contention, rel=1e-3, abs=1e-6)
    assert found.coherence == pytest.approx(coherence, rel=1e-3, abs=1e-6)
    assert found.points == len(counts) and found.most == max(counts)


@given(speeds=some.lists(some.floats(1.0, 1e4), min_size=3, max_size=7))
def test_parameters_are_never_negative_and_no_other_parameters_are_nearer(speeds: list[float]) -> None:
    counts = [1 << power for power in range(len(speeds))]
    found = fitted(counts, speeds)
    assert found is not None and found.contention >= 0 and found.coherence >= 0 and found.rate > 0

    def distance(law: Law) -> float:  # relative to the law, in which N / X(N) is linear
        return sum((speed / law(count) - 1) ** 2 for count, speed in zip(counts, speeds, strict=True))

    draws, least = np.random.default_rng(0), distance(found)
    for _ in range(50):
        step = np.exp(0.2 * draws.standard_normal(3))
        near = law_of(float(found.rate * step[0]), float(found.contention * step[1]), float(found.coherence * step[2]))
        assert distance(near) >= least - 1e-9


def test_the_knee_is_where_the_speed_is_highest() -> None:
    law = fitted([1, 2, 4, 8, 16], [law_of(100.0, 0.05, 0.01)(count) for count in (1, 2, 4, 8, 16)])
    assert law is not None and law.knee == pytest.approx(math.sqrt(0.95 / 0.01))
    fine = np.linspace(1, 16, 1000)
    assert fine[int(np.argmax([law(count) for count in fine]))] == pytest.approx(law.knee, abs=0.02)
    assert "the knee is at 9.7 actors, with" in law.said("actors") and "off by 0.0% in the mean" in law.said("actors")


def test_a_knee_that_was_not_reached_is_said_to_lie_beyond() -> None:
    law = fitted([1, 2, 3, 4], [law_of(100.0, 0.0, 0.001)(count) for count in (1, 2, 3, 4)])
    assert law is not None and "31.6 actors, beyond the 4 that were measured" in law.said("actors")


def test_a_speed_without_knee_has_a_limit_or_none() -> None:
    amdahl = fitted([1, 2, 4, 8], [law_of(100.0, 0.25, 0.0)(count) for count in (1, 2, 4, 8)])
    assert amdahl is not None and math.isinf(amdahl.knee) and amdahl.limit == pytest.approx(400)
    assert "however many actors, it stays below 400 env steps/s" in amdahl.said("actors")
    linear = fitted([1, 2, 4], [100.0, 200.0, 400.0])
    assert linear is not None and math.isinf(linear.limit)
    assert "no knee is seen up to 4 actors" in linear.said("actors") and "three points" in linear.said("actors")


def test_more_that_are_slower_from_the_start_have_their_knee_at_one() -> None:
    law = fitted([1, 2, 4], [100.0, 80.0, 50.0])
    assert law is not None and law.knee == 1.0


def test_two_points_tell_nothing() -> None:
    assert fitted([1, 2], [1.0, 2.0]) is None and fitted([2, 2, 2], [1.0, 2.0, 3.0]) is None
