"""What the commands do, and how their failures are put to a person."""

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import tyro

from cluster.experiment import Experiment, Spaces
from cluster.run import RunOptions, describe_evaluation, evaluate, train
from cluster.run_folder import RunFolder, default_name

Recipe = Callable[..., Experiment]


class RecipeError(ValueError):
    """A recipe that cannot be found or is none; gives the nearest match."""


def find_recipe(name: str) -> Recipe:
    """The function that a recipe's name, or "file.py:function", stands for."""
    return _own_recipe(name) if ":" in name or name.endswith(".py") else _shipped_recipe(name)


def _shipped_recipe(name: str) -> Recipe:
    names = recipe_names()
    if name not in names:
        close = get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}, or my_file.py:function"
        raise RecipeError(f"no recipe {name!r}: {hint}")
    return getattr(importlib.import_module(f"recipes.{name}"), name)


def _own_recipe(name: str) -> Recipe:
    path, _, function = name.partition(":")
    file = Path(path)
    if not file.is_file():
        raise RecipeError(f"no recipe file {path}: give an existing file as my_file.py:function")
    spec = importlib.util.spec_from_file_location(file.stem, file.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    found = [
        n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    if function not in found:
        raise RecipeError(f"{path} has no function {function!r}; it has {', '.join(found) or 'none'}")
    _send_by_value(module)
    return getattr(module, function)


def _send_by_value(module: Any) -> None:
    """Let other processes have the module's classes although they cannot import it."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(module)


def recipe_names() -> list[str]:
    """Names of the shipped recipes, found in the package above this one by name alone."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module("recipes").__path__))


def describe_recipes() -> str:
    """The recipes, a line each."""
    lines = [f"  {name:<12} {(inspect.getdoc(_shipped_recipe(name)) or '').splitlines()[0]}" for name in recipe_names()]
    return "recipes:\n" + "\n".join(lines)


def command_train(arguments: list[str]) -> int:
    """contrail train RECIPE [flags]."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: contrail train RECIPE [flags]      (contrail train RECIPE --help lists its flags)\n")
        print(describe_recipes())
        return 0 if arguments else 2
    name, *flags = arguments
    experiment, options = parse(name, flags)
    spaces = checked_spaces(experiment)
    default = default_name(Path(name.partition(":")[0]).stem, experiment.environment.id)
    folder = RunFolder.create(options.name or default, runs=options.folder)
    folder.save_experiment(_description(name, flags, experiment))
    return _train(experiment, spaces, folder, options, name, resume=False)


def command_resume(arguments: list[str]) -> int:
    """contrail resume RUN."""
    path = tyro.cli(_run_argument, args=arguments, prog="contrail resume")
    folder = RunFolder.open(path)
    recipe, experiment, options = _recorded(folder)
    folder.latest()
    return _train(experiment, checked_spaces(experiment), folder, options, recipe, resume=True)


def command_evaluate(arguments: list[str]) -> int:
    """contrail evaluate RUN [flags]."""
    options = tyro.cli(Evaluation, args=arguments, prog="contrail evaluate")
    folder = RunFolder.open(options.run)
    _, experiment, _ = _recorded(folder)
    values = evaluate(experiment, folder, episodes=options.episodes, seed=options.seed, greedy=not options.sample)
    print(describe_evaluation(values, experiment))
    return 0


@dataclass(frozen=True)
class Evaluation:
    """Play a run's newest checkpoint on fresh episodes.

    Attributes:
        run: folder of the run.
        episodes: how many to play.
        seed: of the episodes.
        sample: sample actions instead of taking the most likely ones.
    """

    run: tyro.conf.Positional[Path]
    episodes: int = 10
    seed: int = 0
    sample: bool = False


def _run_argument(run: tyro.conf.Positional[Path]) -> Path:
    """Continue a run from its newest checkpoint.

    Args:
        run: folder of the run.
    """
    return run


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": command_train,
    "resume": command_resume,
    "evaluate": command_evaluate,
}


def parse(recipe: str, flags: list[str]) -> tuple[Experiment, RunOptions]:
    """The experiment and the run's options that a recipe and its flags give; exits with code 2 on a bad flag."""
    function = find_recipe(recipe)
    experiment, options = tyro.cli(with_options(function), args=flags, prog=f"contrail train {recipe}")
    if not isinstance(experiment, Experiment):
        raise RecipeError(f"recipe {recipe} returned {type(experiment).__name__}, wanted an Experiment")
    return experiment.checked(), options


def checked_spaces(experiment: Experiment) -> Spaces:
    """The environment's spaces, after a look at whether the model fits them: mistakes show before anything runs."""
    spaces = Spaces.of(experiment.environment)
    with torch.device("meta"):
        spaces.model(experiment, learning=True)
    return spaces


def with_options(recipe: Recipe) -> Callable[..., tuple[Experiment, RunOptions]]:
    """A recipe that also takes the run's options, as --run.* flags."""

    def command(*, run: RunOptions, **arguments: Any) -> tuple[Experiment, RunOptions]:
        return recipe(**arguments), run

    signature = inspect.signature(recipe, eval_str=True)
    option = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY, annotation=RunOptions, default=RunOptions())
    keywords = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    parameters = [*keywords, option]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__doc__ = inspect.getdoc(recipe)
    return command


def _description(recipe: str, flags: list[str], experiment: Experiment) -> dict[str, Any]:
    """What `experiment.json` holds of the experiment."""
    source = Path(recipe.partition(":")[0])
    return {
        "recipe": f"{source.resolve()}:{recipe.partition(':')[2]}" if source.suffix == ".py" else recipe,
        "arguments": flags,
        "experiment": repr(experiment),
        "seeds": {f"actor-{index}": experiment.seeds(index) for index in range(experiment.topology.actors)},
    }


def _recorded(folder: RunFolder) -> tuple[str, Experiment, RunOptions]:
    """The recipe, experiment and options of an existing run."""
    description = folder.load_experiment()
    return description["recipe"], *parse(description["recipe"], description["arguments"])


def _train(
    experiment: Experiment, spaces: Spaces, folder: RunFolder, options: RunOptions, recipe: str, *, resume: bool
) -> int:
    title = f"{recipe} on {experiment.environment.id}, in {folder.path}"
    if not train(experiment, spaces, folder, options, title=title, resume=resume):
        print(f"stopped; continue with: contrail resume {folder.path}")
    print(f"curves: tensorboard --logdir {folder.path}")
    return 0


def explained(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command and turn its failures into a sentence and an exit code."""
    try:
        return command(arguments)
    except KeyboardInterrupt:
        print("contrail: interrupted", file=sys.stderr)
        return 130
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except mistakes() as error:
        print(f"contrail: {error}", file=sys.stderr)
        return 2
    except troubles() as error:
        print(f"contrail: {error}", file=sys.stderr)
        if os.environ.get("CONTRAIL_TRACEBACK"):
            traceback.print_exc()
        return 1


def mistakes() -> tuple[type[BaseException], ...]:
    """What a user can mend: the command, the experiment, their environment."""
    from actors.environments import EnvironmentFailed, EnvironmentProblem
    from actors.spaces import SpaceError
    from cluster.experiment import ExperimentError
    from cluster.run_folder import RunFolderError
    from learners.nets.encoders import EncoderError
    from learners.update import UpdateError
    from replay.table import TableError

    problems = (
        EnvironmentProblem,
        SpaceError,
        ExperimentError,
        RunFolderError,
        EncoderError,
        UpdateError,
        TableError,
    )
    return (RecipeError, EnvironmentFailed, *problems)


def troubles() -> tuple[type[BaseException], ...]:
    """What went wrong around a correct command: a full disk, a process that died, a loss that is not a number."""
    from cluster.distributed import ProcessDied
    from learners.checkpoint import CheckpointError
    from learners.gradient import NotFinite
    from learners.learner import StaleRows

    return (OSError, TimeoutError, ProcessDied, CheckpointError, StaleRows, NotFinite)
