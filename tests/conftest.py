"""What all tests share: one thread, quiet Ray, reproducible properties, and no `gpu` test where there is no GPU."""

import os

# Before anything imports torch or Ray: both read these once. Tests share a machine's few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine's other users; derandomised, a failure is the code's and comes back on every run.
settings.register_profile("contrail", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("contrail")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a `gpu` test where torch sees no CUDA device."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
