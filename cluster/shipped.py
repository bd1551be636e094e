"""The recipes that come with the package, as far as their files tell: none is imported, which would take seconds."""

import ast
import importlib
import pkgutil
from pathlib import Path


def recipe_names() -> list[str]:
    """Names of the shipped recipes, found in the package above this one by name alone."""
    return sorted(module.name for module in pkgutil.iter_modules(_folders()))


def describe_recipes() -> str:
    """The recipes, a line each: the first of the function's docstring."""
    return "recipes:\n" + "\n".join(f"  {name:<12} {_first_line(name)}" for name in recipe_names())


def _first_line(name: str) -> str:
    path = next(path for folder in _folders() if (path := Path(folder) / f"{name}.py").exists())
    body = ast.parse(path.read_text()).body
    recipe = next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
    return (ast.get_docstring(recipe) or "").partition("\n")[0]


def _folders() -> list[str]:
    return list(importlib.import_module("recipes").__path__)
