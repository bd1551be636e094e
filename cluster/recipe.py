"""Recipes by name: those that come with the package, and functions in a user's own file."""

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from cluster.experiment import Experiment
from cluster.shipped import recipe_names

Recipe = Callable[..., Experiment]


class RecipeError(ValueError):
    """A recipe that cannot be found, loaded or called; says where it fails or gives the nearest match."""


def find_recipe(name: str) -> Recipe:
    """The function that a recipe's name, or "file.py:function", stands for.

    Raises:
        RecipeError: there is none, or its file cannot be imported.
    """
    return _own_recipe(name) if ":" in name or name.endswith(".py") else _shipped_recipe(name)


def _shipped_recipe(name: str) -> Recipe:
    names = recipe_names()
    if name not in names:
        close = get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}, or my_file.py:function"
        raise RecipeError(f"no recipe {name!r}: {hint}")
    return getattr(importlib.import_module(f"recipes.{name}"), name)


def _own_recipe(name: str) -> Recipe:
    path, _, function = name.rpartition(":") if ":" in name else (name, "", "")
    file = Path(path)
    if not file.is_file():
        raise RecipeError(f"no recipe file {path}: give an existing file as my_file.py:function")
    module = _imported(file)
    found = [
        n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    if function not in found:
        wanted = f"{path} has no function {function!r}" if function else f"{path} alone is no recipe"
        close = get_close_matches(function, found, 1)
        hint = f"did you mean {path}:{close[0]}?" if close else f"functions in it: {', '.join(found) or 'none'}"
        raise RecipeError(f"{wanted}; {hint}")
    return getattr(module, function)


def _imported(file: Path) -> ModuleType:
    """A file as a module that other processes can have too, although they may not be able to import it."""
    from ray import cloudpickle

    # As if it had been run as a script: what lies beside it can be imported, and so can it, by environments' ids.
    folder, name = str(file.resolve().parent), re.sub(r"\W", "_", file.stem)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise RecipeError(f"{file} is no Python file: give one as my_file.py:function")
    taken = importlib.util.find_spec(name)
    if taken is not None and taken.origin != spec.origin:
        raise RecipeError(f"{file} bears the name of another module, {taken.origin}: rename the file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeError(f"{file} cannot be imported: {described(error)}") from error
    cloudpickle.register_pickle_by_value(module)
    return module


def described(error: Exception) -> str:
    """An error in somebody's own code: what, and in which line."""
    # A ValueError is how a function refuses what it was given: a sentence already.
    what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):  # says the line itself
        return what
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{what} ({last.filename}, line {last.lineno})"
