"""Environments by id, and the seeds that they start from."""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from actors.side_by_side import SideBySide
from actors.vectorised import Environments, Step
from actors.watched import EnvironmentFailed, Watched

__all__ = ["Environment", "EnvironmentFailed", "EnvironmentProblem", "Environments", "Step", "environment_seeds"]

SEED_BRANCH = 0xE4
"""First key of every environment's place in the run's seed tree: no node is shared with learners or policies."""


class EnvironmentProblem(ValueError):
    """An environment that cannot be made as described; says what would work."""


@dataclass(frozen=True)
class Environment:
    """Which environment, as a value.

    Attributes:
        id: "CartPole-v1", "ALE/Breakout-v5", or "module:Name-v0", whose module is imported first.
        kwargs: passed on to it, e.g. {"max_num_frames_per_episode": 18_000}.
    """

    id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "stack_num" in self.kwargs:
            raise EnvironmentProblem(
                f"{self.id}: stack_num {self.kwargs['stack_num']}; rows hold single frames, which a table's `lead` "
                "stacks when they are read: leave it out"
            )

    def make(self, count: int, *, threads: int = 1) -> "Environments":
        """This many of them, stepped together.

        Args:
            count: how many.
            threads: of the emulator, for Atari; every other environment runs in the caller's thread.

        Raises:
            EnvironmentProblem: unknown id or module, or keyword arguments that it refuses.
        """
        name = _registered(self.id)
        atari = name.startswith("ALE/")
        make = partial(_make_atari, threads=threads) if atari else _make
        try:
            vector_env = make(name, count, self.kwargs)
        except Exception as error:
            given = f" with {dict(self.kwargs)}" if self.kwargs else ""
            raise EnvironmentProblem(
                f'environment "{self.id}" cannot be made{given}: {type(error).__name__}: {error}'
            ) from error
        return Environments(vector_env, count=count, single_frame=atari)


def environment_seeds(seed: int, actor: int, count: int, *, incarnation: int = 0) -> list[int]:
    """Distinct 31-bit seeds for one actor's environments, from their own branch of the run's seed tree.

    Args:
        seed: of the run.
        actor: its number.
        count: how many environments it has.
        incarnation: how often it was restarted; a restarted actor must not repeat its episodes.
    """
    tree = np.random.SeedSequence(seed, spawn_key=(SEED_BRANCH, actor, incarnation))
    return [int(drawn) for drawn in np.random.default_rng(tree).choice(2**31 - 1, size=count, replace=False)]


def _registered(environment: str) -> str:
    """The name under which an id is registered, its module imported."""
    module, _, name = environment.rpartition(":")
    if module:
        _import(environment, module, _module_hint(module))
    if name.startswith("ALE/"):
        _import(environment, "ale_py", "pip install contrail[atari]")
        gymnasium.register_envs(importlib.import_module("ale_py"))
    if name not in gymnasium.registry:
        close = difflib.get_close_matches(name, gymnasium.registry, n=1)
        hint = f'did you mean "{close[0]}"?' if close else 'give "module:Name-v0" for one that a module registers'
        raise EnvironmentProblem(f'environment "{environment}" is not registered; {hint}')
    return name


def _module_hint(module: str) -> str:
    """What to do about a module that was not found: the nearest name where its path breaks off."""
    package, beside = "", None
    for name in module.split("."):
        if package + name in sys.modules:
            beside = getattr(sys.modules[package + name], "__path__", ())
            package += name + "."
            continue
        near = difflib.get_close_matches(name, [found.name for found in pkgutil.iter_modules(beside)], n=1)
        if near:
            return f'did you mean "{package}{near[0]}"?'
        break
    return f'is "{module}" on the Python path?'


def _import(environment: str, module: str, hint: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):  # it is there, and lacks another
            raise EnvironmentProblem(_broken(environment, module, error)) from error
        raise EnvironmentProblem(f'environment "{environment}" needs the module "{module}": {error}; {hint}') from error
    except Exception as error:
        raise EnvironmentProblem(_broken(environment, module, error)) from error


def _broken(environment: str, module: str, error: Exception) -> str:
    return f'environment "{environment}": its module "{module}" cannot be imported: {type(error).__name__}: {error}'


def _make(name: str, count: int, kwargs: Mapping[str, Any]) -> VectorEnv:
    """An environment's own vector class where it has one, else a loop over single ones."""
    if gymnasium.spec(name).vector_entry_point is not None:
        return gymnasium.make_vec(name, num_envs=count, vectorization_mode="vector_entry_point", **kwargs)
    return SideBySide([partial(_make_one, name, kwargs, index, count) for index in range(count)])


def _make_one(name: str, kwargs: Mapping[str, Any], index: int, count: int) -> gymnasium.Env:
    """An environment of several; not a function inside another one, which a snapshot could not name."""
    # Gymnasium's own checker is off: it only warns, and Watched checks what matters here.
    return Watched(gymnasium.make(name, disable_env_checker=True, **kwargs), index=index, count=count)


def _make_atari(name: str, count: int, kwargs: Mapping[str, Any], *, threads: int) -> VectorEnv:
    """Atari by its C++ vector class: single frames and true rewards, everything else as registered."""
    settings = {"stack_num": 1, "reward_clipping": False, "num_threads": threads, **kwargs}
    return gymnasium.make_vec(name, num_envs=count, vectorization_mode="vector_entry_point", **settings)
