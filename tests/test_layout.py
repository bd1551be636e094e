"""The house rules that can be checked: our packages are ours, floors stay light, files and functions stay small."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
PACKAGES = ["replay", "actors", "learners", "cluster", "recipes"]
MODULES = sorted(path for package in PACKAGES for path in (HOUSE / package).rglob("*.py"))
MOST_FILE_LINES = 300
MOST_FUNCTION_LINES = 40


def names_of(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(HOUSE)) for path in paths]


def length_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring: a recipe's many flags are not complexity."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_ours_and_not_a_namesake_from_the_index(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None, f"{package} has no __init__.py"
    assert Path(module.__file__).parent == HOUSE / package


@pytest.mark.parametrize("path", MODULES, ids=names_of(MODULES))
def test_file_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_FILE_LINES
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {function.name: length_of(function) for function in functions if length_of(function) > MOST_FUNCTION_LINES}
    assert not long


def imported_by(package: str) -> set[str]:
    """Top-level names of all modules in memory after every module of a package was imported, in a fresh process."""
    modules = [".".join(path.relative_to(HOUSE).with_suffix("").parts) for path in (HOUSE / package).rglob("*.py")]
    names = [module.removesuffix(".__init__") for module in sorted(modules)]
    program = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        ("replay", {"torch", "ray", "gymnasium", "actors", "learners", "cluster"}),
        ("actors", {"torch", "ray", "learners", "cluster"}),
        ("learners", {"ray", "cluster"}),
    ],
)
def test_floor_stays_light(package: str, unwanted: set[str]) -> None:
    assert imported_by(package) & unwanted == set()


def test_changelog_opens_with_the_version_of_the_distribution() -> None:
    version = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["version"]
    headings = [line for line in (HOUSE / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].split()[1] == version
