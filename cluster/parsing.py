"""From flags to an experiment: those of the command line, and those that a run recorded."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any

import tyro

from cluster.experiment import Experiment
from cluster.mistakes import is_mistake
from cluster.recipe import Recipe, RecipeError, described, find_recipe
from cluster.run import RunOptions
from cluster.run_folder import RunFolder, RunFolderError
from cluster.topology import Topology

Parameters = dict[str, bool | int | float | str]


def parse(recipe: str, flags: list[str]) -> tuple[Experiment, RunOptions]:
    """The experiment and the run's options that a recipe and its flags give; exits with code 2 on a bad flag."""
    experiment, options, _ = parsed(recipe, flags)
    return experiment, options


def parsed(recipe: str, flags: list[str]) -> tuple[Experiment, RunOptions, Parameters]:
    """As `parse`, and all arguments that the recipe was called with, by name, defaults among them.

    Those of a topology are as resolved.
    """
    found, given = find_recipe(recipe), dict[str, Any]()

    @wraps(found)
    def noted(**arguments: Any) -> Any:  # `called` looks whether it is an experiment
        given.update(arguments)
        return found(**arguments)

    experiment, options = tyro.cli(with_options(noted, recipe), args=flags, prog=f"contrail train {recipe}")
    experiment = experiment.checked()
    given |= {name: experiment.topology for name, value in given.items() if isinstance(value, Topology)}
    return experiment, options, {"recipe": recipe, **dict(_flat(given))}


def recorded(folder: RunFolder) -> tuple[str, Experiment, RunOptions]:
    """The recipe, experiment and options of an existing run.

    Raises:
        RunFolderError: its description is damaged.
    """
    description = folder.load_experiment()
    try:
        recipe, arguments = description["recipe"], description["arguments"]
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{folder.path}/experiment.json is damaged ({error}): start a new run") from error
    return recipe, *parse(recipe, arguments)


def called(recipe: Recipe, name: str, **arguments: object) -> Experiment:
    """What a recipe returns.

    Raises:
        RecipeError: it raised something of its own, or returned no Experiment.
    """
    try:
        experiment = recipe(**arguments)
    except Exception as error:
        if is_mistake(error):  # with a sentence already
            raise
        raise RecipeError(f"recipe {name}: {described(error)}") from error
    if not isinstance(experiment, Experiment):
        raise RecipeError(f"recipe {name} returned {type(experiment).__name__}: let it return an Experiment")
    return experiment


def with_options(recipe: Recipe, name: str) -> Callable[..., tuple[Experiment, RunOptions]]:
    """A recipe that also takes the run's options, as --run.* flags."""

    def command(*, run: RunOptions, **arguments: Any) -> tuple[Experiment, RunOptions]:
        return called(recipe, name, **arguments), run

    try:
        signature = inspect.signature(recipe, eval_str=True)
    except NameError as error:
        raise RecipeError(f"recipe {name} has an annotation that stands for nothing: {error}") from error
    if "run" in signature.parameters:
        raise RecipeError(f"recipe {name} has a flag `run`, where the run's own options are: rename it")
    option = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY, annotation=RunOptions, default=RunOptions())
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    parameters = [*keywords, option]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = inspect.getdoc(recipe)
    return command


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    for name, value in values.items():
        if is_dataclass(value) and not isinstance(value, type):
            yield from _flat({field.name: getattr(value, field.name) for field in fields(value)}, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, bool | int | float | str) else repr(value)
