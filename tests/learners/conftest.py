from collections.abc import Iterator

import pytest
import torch

from tests.learners.pair import Pair


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    torch.manual_seed(1)


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two learners in processes of their own."""
    both = Pair(tmp_path_factory.mktemp("pair"))
    yield both
    both.close()
