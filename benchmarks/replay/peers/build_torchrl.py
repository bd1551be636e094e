"""Makes TorchRL's C++ extension load: the wheel of TorchRL 0.14 was built for another torch than the 2.13 asked for.

The sources lie in TorchRL's wheel, so they are compiled against the torch that is there (a minute; needs g++ and
ninja). Does nothing when the extension loads. Without it there is no prioritised sampling.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path

import torch
from torch.utils import cpp_extension


def loads() -> bool:
    """Whether the extension that is installed fits the torch that is installed."""
    try:
        importlib.import_module("torchrl._torchrl")
    except ImportError:
        return False
    return True


def build() -> None:
    """Compile the extension over the one that came with the wheel."""
    specification = importlib.util.find_spec("torchrl._torchrl")
    assert specification is not None and specification.origin is not None, "TorchRL came without its extension"
    installed = Path(specification.origin)
    sources = [str(installed.parent / "csrc" / name) for name in ("pybind.cpp", "utils.cpp")]
    with tempfile.TemporaryDirectory() as folder:
        cpp_extension.load(
            name="_torchrl",
            sources=sources,
            extra_cflags=["-O3"],
            build_directory=folder,
            is_python_module=False,
        )
        shutil.copy(Path(folder) / "_torchrl.so", installed)


if __name__ == "__main__":
    if not loads():
        build()
        print(f"built TorchRL's extension for torch {torch.__version__}")
