"""An exported policy as one function of arrays, and how to act with it.

The function takes single frames and what the policy remembers, and gives the action and what it remembers next:

| input | |
|---|---|
| `observation`, or `observation.<key>` | as the environment gives it, single frames |
| `frames.<column>` | of an image, where the policy stacks frames: the stack that was seen before, (n, planes, H, W) |
| `core_state` | of a recurrent policy, its state before the row |
| `first` | (n,) bool, where there is something to remember: an episode's first row, everything before it is forgotten |

| output | |
|---|---|
| `action` | the likeliest one |
| `value` | the critic's estimate, in units of the (scaled) reward |
| `policy_<parameter>` | of the distribution over actions |
| `next.<input>` | for each thing that is remembered, what to give the next time |
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from learners.behaviour import PREFIX
from learners.description import Description, DescriptionError
from learners.distributions import Distribution
from learners.extras import needed

METADATA = "contrail.json"
"""Where the description is: a file inside a .pt2, a key of an .onnx' metadata, of a .safetensors' header."""

NEXT = "next."
"""In front of an input's name, it is the output to feed back."""

Arrays = dict[str, np.ndarray]


class ExportError(ValueError):
    """An export that cannot be made, read or trusted: says which file and what to do."""


class ExportedPolicy:
    """Acts with an exported function, as `learners.policy.ModelPolicy` does with a model.

    Args:
        description: of the policy that was exported; its facts hold the function's `inputs`.
        function: from input arrays (n, ...) to output arrays, by name.

    Attributes:
        inputs: dtype and shape without n of everything that the function takes.
    """

    def __init__(self, description: Description, function: Callable[[Arrays], Arrays]) -> None:
        self.description, self._function = description, function
        try:
            given = description.facts["inputs"]
            self.inputs = {name: (np.dtype(dtype), tuple(shape)) for name, (dtype, shape) in given.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise DescriptionError(f"the description lacks the function's inputs ({error}): export it again") from error

    def initial_state(self, n: int) -> Arrays:
        """Nothing seen yet by n streams."""
        remembered = self.inputs.keys() - self.description.observation.keys() - {"first"}
        return {
            name: np.zeros((n, *shape), dtype) for name, (dtype, shape) in self.inputs.items() if name in remembered
        }

    def step(self, observation: Mapping[str, np.ndarray], state: Arrays, first: np.ndarray) -> tuple[Arrays, Arrays]:
        """All outputs for n streams that are not remembered, and what is."""
        given = {**observation, **state, "first": first}
        outputs = self._function({name: given[name] for name in self.inputs})
        remembered = {name.removeprefix(NEXT): value for name, value in outputs.items() if name.startswith(NEXT)}
        return {name: value for name, value in outputs.items() if not name.startswith(NEXT)}, remembered

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        state: Arrays,
        first: np.ndarray,
        rng: np.random.Generator,
        *,
        greedy: bool = False,
    ) -> tuple[Arrays, Arrays]:
        """The outputs for n streams, with a sampled action unless `greedy`, and what to remember."""
        outputs, state = self.step(observation, state, first)
        if not greedy:
            outputs["action"] = self.distribution(outputs).sample(rng).numpy()
        return outputs, state

    def distribution(self, outputs: Arrays) -> Distribution:
        """The distribution over actions that the outputs are the parameters of."""
        found = {name.removeprefix(PREFIX): value for name, value in outputs.items() if name.startswith(PREFIX)}
        parameters = {name: torch.from_numpy(value) for name, value in found.items()}
        return cast(Distribution, replace(cast(Any, self._kind), **parameters))

    @cached_property
    def _kind(self) -> Distribution:
        """Some distribution of the policy's kind."""
        model = self.description.build()
        masks = [torch.ones(1, *self.description.observation[name].shape) for name in model.masks]
        with torch.inference_mode():
            return model.policy(torch.zeros(1, model.context), *masks)


def load_weights(path: Path) -> tuple[Description, Arrays]:
    """The description and the weights in a .safetensors file.

    Raises:
        ExportError: the file cannot be read.
        DescriptionError: it does not describe its policy.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{path} cannot be read as safetensors ({error})") from error
    return Description.from_json(metadata.get(METADATA, "{}"), where=str(path)), weights


def load_exported(path: Path) -> ExportedPolicy:
    """The policy in a .pt2 or .onnx file.

    Raises:
        ExportError: the file cannot be read.
        MissingExtra: onnxruntime is not installed.
        DescriptionError: it does not describe its policy.
    """
    text, function = {".pt2": _load_pt2, ".onnx": _load_onnx}[path.suffix](path)
    return ExportedPolicy(Description.from_json(text, where=str(path)), function)


def _load_pt2(path: Path) -> tuple[str, Callable[[Arrays], Arrays]]:
    extra = {METADATA: ""}
    try:
        with quiet():
            module = cast(nn.Module, torch.export.load(path, extra_files=extra).module())
    except Exception as error:
        raise ExportError(
            f"{path} cannot be read as a torch.export archive ({type(error).__name__}: {error})"
        ) from error

    @torch.inference_mode()
    def function(inputs: Arrays) -> Arrays:
        outputs = module(*[torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()])
        return {name: value.numpy() for name, value in outputs.items()}

    return extra[METADATA], function


def _load_onnx(path: Path) -> tuple[str, Callable[[Arrays], Arrays]]:
    runtime = needed("onnxruntime", "an .onnx file is read with onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"{path} cannot be read as ONNX ({type(error).__name__}: {error})") from error
    names = [output.name for output in session.get_outputs()]

    def function(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return session.get_modelmeta().custom_metadata_map.get(METADATA, "{}"), function


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters say on the way: of packages that nobody asked for, and of their own future."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
