import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import Contrail


@pytest.fixture
def contrail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Contrail]:
    """The command line, keeping its runs in a folder of the test's own; its recipe files are called own_*.py."""
    path = list(sys.path)
    yield Contrail(tmp_path / "runs", capsys)
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
