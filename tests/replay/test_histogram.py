import numpy as np
import pytest

from replay.histogram import histogram


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("size", [0, 1, 1e6])
def test_numbers_that_are_all_but_the_same_have_bins(dtype: type, size: float) -> None:
    values = np.array([size, size, size], dtype)
    if dtype is not np.int64:
        values[1] = np.nextafter(values[1], dtype(2e6))
    counts, edges = histogram(values, 64)
    assert counts.sum() == 3 and len(edges) == 65 and (np.diff(edges) > 0).all()


def test_numbers_that_differ_are_told_apart(rng: np.random.Generator) -> None:
    values = rng.normal(size=1000)
    counts, edges = histogram(values, 20)
    expected = np.histogram(values, 20)
    assert (counts == expected[0]).all() and np.allclose(edges, expected[1])
