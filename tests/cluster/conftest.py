import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.commands import Contrail
from tests.cluster.machines import Machines, what_is_missing


@pytest.fixture
def contrail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Contrail]:
    """The command line, keeping its runs in a folder of the test's own; its recipe files are called own_*.py."""
    path = list(sys.path)
    yield Contrail(tmp_path / "runs", capsys)
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Pretend machines, the same for all tests of a session; a test that breaks one mends it."""
    if missing := what_is_missing():
        pytest.skip(f"no pretend machines: {missing}")
    made = Machines(tmp_path_factory.mktemp("machines"))
    yield made
    made.close()
