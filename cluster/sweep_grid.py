"""From flags with several values to the runs of a sweep: one for each combination, checked before anything starts."""

import inspect
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from cluster.commands import checked_spaces
from cluster.experiment import ExperimentError
from cluster.film import check_film
from cluster.parsing import parsed
from cluster.recipe import Recipe, find_recipe
from cluster.sweep_folder import Planned, Setting

Group = tuple[str, list[str]]
"""A flag and the values behind it, as they were typed."""

LONGEST = 240
"""Characters of a run's name: file systems take 255, and that of its log is longer."""
BOOLEANS = {"true": True, "false": False}


def planned(recipe: str, flags: Sequence[Group]) -> list[Planned]:
    """All combinations of the flags' values, the last flag's changing first.

    Raises:
        ExperimentError: there is nothing to sweep, a value is there twice, or a flag cannot be swept.
        SystemExit: a flag or a value that `contrail train` refuses; it was told why.
    """
    kinds = flag_kinds(find_recipe(recipe))
    for flag, count in Counter(plain(flag) for flag, _ in flags).items():
        if count > 1:
            raise ExperimentError(f"--{flag} is given {count} times: give all its values after one")
    choices = [_choices(flag, values, kinds.get(plain(flag))) for flag, values in flags]
    varied = [plain(flag) for (flag, _), choice in zip(flags, choices, strict=True) if len(choice) > 1]
    if not varied:
        raise ExperimentError("nothing differs between runs: give a flag several values, such as --seed 1 2 3")
    runs = [_planned(recipe, [*itertools.chain(*tokens)], varied) for tokens in itertools.product(*choices)]
    for name, count in Counter(run.name for run in runs).items():
        if count > 1:
            raise ExperimentError(f"{count} runs would be called {name}: is a value given twice?")
        if len(name) > LONGEST:
            raise ExperimentError(f"{name} is too long a name for a run's folder: sweep fewer flags, or shorter values")
    return runs


def changed(arguments: Sequence[str], settings: Mapping[str, Setting]) -> list[str]:
    """Flags with other values for some of them."""
    own = [_typed(flag, value) for flag, value in settings.items()]
    old = {*settings, *(plain(_boolean(f"--{flag}", "false")) for flag in settings)}
    kept = [(flag, *values) for flag, values in grouped(arguments) if plain(flag) not in old]
    return [*itertools.chain(*kept, *own)]


def _typed(flag: str, value: Setting) -> list[str]:
    return [_boolean(f"--{flag}", str(value))] if isinstance(value, bool) else [f"--{flag}", str(value)]


def grouped(tokens: Sequence[str]) -> list[Group]:
    """Flags with what is behind each of them.

    Raises:
        ExperimentError: a value comes before any flag.
    """
    groups: list[Group] = []
    for token in tokens:
        if token.startswith("--"):
            flag, given, value = token.partition("=")
            groups.append((flag, [value] if given else []))
        elif groups:
            groups[-1][1].append(token)
        else:
            raise ExperimentError(f"{token!r} belongs to no flag: flags begin with --, values follow them")
    return groups


def plain(flag: str) -> str:
    """One spelling of a flag: the command line takes both - and _ inside."""
    return flag.removeprefix("--").replace("_", "-")


def _choices(flag: str, values: Sequence[str], kind: Any) -> list[list[str]]:
    """What to hand on of a flag, once for each of its values."""
    whole = [[flag, *values]]
    if len(values) < 2:
        return whole
    if plain(flag).startswith("run."):
        raise ExperimentError(f"{flag} has {len(values)} values, but is the same for all runs of a sweep: give one")
    if _takes_several(kind):
        if get_origin(kind) is tuple and Ellipsis not in get_args(kind) and len(get_args(kind)) == len(values):
            return whole
        raise ExperimentError(
            f"{flag} takes several values itself, so {' '.join(values)!r} may be one setting or {len(values)}: "
            "such a flag cannot be swept; write a recipe with a flag of one value that stands for them"
        )
    if kind is bool:
        return [[_boolean(flag, value)] for value in values]
    return [[flag, value] for value in values]


def _boolean(flag: str, value: str) -> str:
    """A flag without a value: --anneal, --no-anneal, --topology.no-local."""
    if value.lower() not in BOOLEANS:
        raise ExperimentError(f"{flag} {value}: wanted true or false, as in {flag} true false")
    before, dot, last = plain(flag).rpartition(".")
    return f"--{before}{dot}{'' if BOOLEANS[value.lower()] else 'no-'}{last}"


def flag_kinds(recipe: Recipe) -> dict[str, Any]:
    """The type of every flag of a recipe, those inside of dataclasses too."""
    given = {
        name: parameter.annotation for name, parameter in inspect.signature(recipe, eval_str=True).parameters.items()
    }
    return dict(_flat(given))


def _flat(kinds: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, kind in kinds.items():
        if isinstance(kind, type) and is_dataclass(kind):
            hints = get_type_hints(kind)
            yield from _flat({field.name: hints[field.name] for field in fields(kind)}, f"{prefix}{plain(name)}.")
        else:
            yield f"{prefix}{plain(name)}", kind


def _takes_several(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if origin in (Union, UnionType):
        return any(map(_takes_several, get_args(kind)))
    return isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, str | bytes)


def _planned(recipe: str, arguments: list[str], varied: Sequence[str]) -> Planned:
    """One run, after the looks that `contrail train` takes before it starts."""
    experiment, options, parameters = parsed(recipe, arguments)
    checked_spaces(experiment)
    if options.film:
        check_film(experiment)
    settings = {flag: parameters[flag.replace("-", "_")] for flag in varied}
    name = ",".join(f"{flag}={value}" for flag, value in settings.items())
    return Planned(re.sub(r"[^A-Za-z0-9._,=+-]+", "-", name), tuple(arguments), settings, experiment.steps)
