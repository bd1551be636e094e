"""A policy described in JSON, so that it can be built again without the recipe that made it."""

import importlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from learners.model import ActorCritic, Model
from replay.schema import Column

FORMAT = 1
"""Raised when a description is written that older versions would misread."""

OURS = "learners."
"""The only modules that a description may have imported. A file from elsewhere decides nothing else."""

SPACES = {
    "Discrete": ("n", "start"),
    "MultiDiscrete": ("nvec", "start"),
    "MultiBinary": ("n",),
    "Box": ("low", "high"),
}
"""Action spaces by name, and the numbers that say which one it is."""


class DescriptionError(ValueError):
    """A policy that cannot be described, or a description that cannot be followed: says which part and what to do."""


@dataclass(frozen=True)
class Description:
    """All that building a policy's network takes, but its weights.

    Attributes:
        model: the network.
        observation: columns of one row's observation, single frames.
        action_space: decides the distribution over actions.
        facts: what else is worth knowing, as JSON has it: environment, recipe, env steps.
    """

    model: ActorCritic
    observation: Mapping[str, Column]
    action_space: gym.Space
    facts: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Model:
        """The network, its weights still to be loaded; torch's generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            return self.model.build(self.observation, self.action_space).eval().requires_grad_(False)

    def to_json(self) -> str:
        """The description as JSON.

        Raises:
            DescriptionError: the model has a part that JSON has no form for; names it.
        """
        columns = {name: {"dtype": c.dtype, "shape": list(c.shape)} for name, c in self.observation.items()}
        values = {
            "contrail_policy": FORMAT,
            "model": _encoded(self.model, "model"),
            "observation": columns,
            "action_space": _encoded_space(self.action_space),
            "facts": dict(self.facts),
        }
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Description":
        """What `to_json` wrote.

        Args:
            text: the JSON.
            where: the file that it was in, for messages.

        Raises:
            DescriptionError: it is damaged, of a later version, or names a class that is not there.
        """
        try:
            values = json.loads(text)
            if values["contrail_policy"] > FORMAT:
                raise DescriptionError(f"{where} was written by a later version of contrail: update it")
            columns = {name: Column(c["dtype"], tuple(c["shape"])) for name, c in values["observation"].items()}
            space = _decoded_space(values["action_space"])
            model = _decoded(values["model"])
        except DescriptionError as error:
            raise DescriptionError(f"{where}: {error}") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DescriptionError(f"{where} does not describe a policy ({type(error).__name__}: {error})") from error
        if not isinstance(model, ActorCritic):
            raise DescriptionError(f"{where} describes a {type(model).__name__}, wanted an ActorCritic")
        return cls(model, columns, space, values["facts"])


def _encoded(value: Any, path: str) -> Any:
    """A part of a model's description as JSON has it: dataclasses by module, name and fields."""
    if isinstance(value, bool | str | None):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, tuple | list):
        return [_encoded(part, f"{path}[{index}]") for index, part in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _encoded(part, f"{path}.{key}") for key, part in value.items()}
    if not is_dataclass(value) or isinstance(value, type):
        raise DescriptionError(
            f"{path} is {value!r}, which JSON has no form for: use numbers, strings, tuples and frozen dataclasses"
        )
    kind = type(value)
    parts = {f.name: _encoded(getattr(value, f.name), f"{path}.{f.name}") for f in fields(value) if f.init}
    return {"type": f"{kind.__module__}:{kind.__qualname__}"} | parts


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(part) for part in value)
    if not isinstance(value, dict):
        return float(value) if value in ("inf", "-inf", "nan") else value
    parts = {name: _decoded(part) for name, part in value.items() if name != "type"}
    if "type" not in value:
        return parts
    kind = _class_of(value["type"])
    try:
        return kind(**parts)
    except TypeError as error:
        raise DescriptionError(f"{value['type']} is not what it was when this was written ({error})") from error


def _class_of(name: str) -> type:
    """A dataclass by "module:Name": one of ours, or of a module that somebody has imported already."""
    module, _, attribute = name.partition(":")
    if module.startswith(OURS):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise DescriptionError(f"this version of contrail has no {module}: update it") from error
    if module not in sys.modules:
        raise DescriptionError(f"the model uses {attribute} of the module {module}: import it before loading")
    kind = getattr(sys.modules[module], attribute, None)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise DescriptionError(f"{module} has no dataclass {attribute}")
    return kind


def _number(value: Any) -> Any:
    """A number, as a string where JSON has no form for it."""
    return value if math.isfinite(value) else str(value)


def _encoded_space(space: gym.Space) -> dict[str, Any]:
    name = type(space).__name__
    if name not in SPACES:
        raise DescriptionError(f"action space {space} cannot be described: wanted one of {', '.join(SPACES)}")
    numbers = {part: np.asarray(getattr(space, part)) for part in SPACES[name]}
    described = {part: [_number(v) for v in array.ravel().tolist()] for part, array in numbers.items()}
    return {"type": name, "shape": list(space.shape or ()), "dtype": str(space.dtype)} | described


def _decoded_space(values: Mapping[str, Any]) -> gym.Space:
    shape, dtype = tuple(values["shape"]), np.dtype(values["dtype"])
    match values["type"]:
        case "Discrete":
            return gym.spaces.Discrete(values["n"][0], start=values["start"][0], dtype=dtype.type)
        case "MultiDiscrete":
            nvec, start = (np.array(values[name], np.int64).reshape(shape) for name in ("nvec", "start"))
            return gym.spaces.MultiDiscrete(nvec, dtype=dtype.type, start=start)
        case "MultiBinary":
            return gym.spaces.MultiBinary(values["n"] if len(values["n"]) > 1 else values["n"][0])
        case "Box":
            low, high = (np.array([float(v) for v in values[name]], dtype).reshape(shape) for name in ("low", "high"))
            return gym.spaces.Box(low, high, shape, dtype.type)
    raise DescriptionError(f"action space {values['type']!r} is not known: wanted one of {', '.join(SPACES)}")
