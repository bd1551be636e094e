"""Writing an acting policy for others, and proving that what was written acts the same."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import jaxtyping
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from learners.behaviour import recorded
from learners.description import Description
from learners.exported import METADATA, NEXT, ExportedPolicy, ExportError, load_exported, load_weights, quiet
from learners.extras import needed
from learners.model import Model
from learners.policy import ModelPolicy
from replay.schema import Column

PolicyFormat = Literal["safetensors", "pt2", "onnx"]
TOLERANCE = 1e-4
"""Largest difference that is put down to rounding: of outputs below 1 as it is, of larger ones relative to them."""

Sequence = tuple[Mapping[str, np.ndarray], np.ndarray]
"""Observation columns (T, n, ...) of n streams, and where an episode begins, (T, n) bool."""


@dataclass(frozen=True)
class Verified:
    """What a comparison with the original came to.

    Attributes:
        rows: observations compared.
        difference: the largest between the two, over all outputs; relative where these are above 1.
        other_actions: rows on which the likeliest action differs, a tie to within the difference.
    """

    rows: int
    difference: float
    other_actions: int


def policy_format_of(path: Path) -> PolicyFormat | None:
    """The format that a file's suffix stands for."""
    return next((known for known in get_args(PolicyFormat) if path.suffix == f".{known}"), None)


def export_policy(
    description: Description,
    weights: Mapping[str, np.ndarray],
    path: Path,
    checks: Mapping[str, Iterable[Sequence]],
) -> dict[str, Verified]:
    """Write a policy, read it back, and compare the two; the file appears only if they agree.

    Functions (.pt2, .onnx) compute in float32, and are compared with the model in float32, whatever it learned in.

    Args:
        description: of the model; what is in its facts is kept.
        weights: `Model.acting_weights`.
        path: a new file; its suffix decides the format.
        checks: observations to compare on, by what they are.

    Returns:
        What each of the checks came to.

    Raises:
        ExportError: the file exists or cannot be written, or the two do not agree.
        MissingExtra: what writes this kind is not installed.
        DescriptionError: the model cannot be described.
    """
    if path.exists():
        raise ExportError(f"{path} exists already: give another TARGET, or remove it")
    if path.suffix != ".safetensors":
        description = replace(description, model=replace(description.model, precision="fp32"))
    description.to_json()
    model = _loaded(_recording(description), weights)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            partial = Path(folder) / f"policy{path.suffix}"
            written = _written(description, model, weights, partial)
            verified = {name: _compare(model, written, sequences) for name, sequences in checks.items()}
            for name, result in verified.items():
                if not result.difference <= TOLERANCE:
                    raise ExportError(
                        f"{path.name} would differ from the policy by {result.difference:.2g} on {name} observations, "
                        f"more than {TOLERANCE:g}: nothing was written"
                    )
            os.replace(partial, path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error})") from error
    return verified


def _loaded(description: Description, weights: Mapping[str, np.ndarray]) -> Model:
    model = description.build()
    model.load_acting_weights(weights)
    return model


def _written(
    description: Description, model: Model, weights: Mapping[str, np.ndarray], path: Path
) -> ExportedPolicy | ModelPolicy:
    """Write the file; the policy that is read back from it."""
    if path.suffix == ".safetensors":
        tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        save_file(tensors, path, metadata={METADATA: description.to_json()})
        again, stored = load_weights(path)
        return ModelPolicy(_loaded(_recording(again), stored))
    graph = StepGraph(model, description.observation)
    inputs = graph.inputs(3)
    facts = {name: (str(value.dtype).removeprefix("torch."), list(value.shape[1:])) for name, value in inputs.items()}
    text = replace(description, facts={**description.facts, "inputs": facts}).to_json()
    write = {".pt2": _write_pt2, ".onnx": _write_onnx}[path.suffix]
    with quiet():
        write(graph, inputs, text, path)
    return load_exported(path)


def _recording(description: Description) -> Description:
    """The same, of a policy that gives its distribution's parameters as well."""
    return replace(description, model=replace(description.model, record_distribution=True))


class StepGraph(nn.Module):
    """A policy's step as a function of tensors, without memory of its own; see `learners.exported`."""

    def __init__(self, model: Model, observation: Mapping[str, Column]) -> None:
        super().__init__()
        self.model, self.observation = model, dict(observation)
        self.names = tuple(self.inputs(1))

    def inputs(self, n: int) -> dict[str, Tensor]:
        """Inputs for n streams, all zero."""
        columns = self.observation.items()
        inputs = {name: torch.zeros((n, *c.shape), dtype=getattr(torch, c.dtype)) for name, c in columns}
        if self.model.stack > 1:
            for name in self.model.image_columns:
                shape = self.model.observation_columns[name].shape
                inputs[f"frames.{name}"] = torch.zeros((n, *shape), dtype=torch.uint8)
        if self.model.core is not None:
            inputs["core_state"] = torch.from_numpy(ModelPolicy(self.model).initial_state(n).core)
        if len(inputs) > len(self.observation):
            inputs["first"] = torch.ones(n, dtype=torch.bool)
        return inputs

    def forward(self, *values: Tensor) -> dict[str, Tensor]:
        """Outputs by name, for inputs (n, ...) in the order of `names`."""
        given = dict(zip(self.names, values, strict=True))
        rows, remembered = {name: given[name] for name in self.observation}, {}
        for name in self.model.image_columns:
            rows[name] = _planes(rows[name])
            if self.model.stack > 1:
                rows[name] = self._stacked(rows[name], given[f"frames.{name}"], given["first"])
                remembered[f"{NEXT}frames.{name}"] = rows[name]
        batch = {name: value.unsqueeze(1) for name, value in rows.items()}
        if self.model.core is not None:
            batch["core_state"] = given["core_state"].unsqueeze(1)
            batch["step"] = (~given["first"]).int().unsqueeze(1)
        out = self.model(batch)
        outputs = {"action": out.dist.mode(), "value": out.value, **recorded(out.dist)}
        if self.model.core is not None:
            remembered[f"{NEXT}core_state"] = out.core_state
        return {name: value[:, 0].clone() for name, value in outputs.items()} | remembered

    def _stacked(self, planes: Tensor, before: Tensor, first: Tensor) -> Tensor:
        """The stack with the newest frame at its end; of that frame alone where an episode begins."""
        frames = before.unflatten(1, (self.model.stack, -1))
        newest = planes.unsqueeze(1)
        moved = torch.cat([frames[:, 1:], newest], 1)
        return torch.where(first[:, None, None, None, None], newest.expand_as(moved), moved).flatten(1, 2)


def _planes(frames: Tensor) -> Tensor:
    """Frames as planes (n, C, H, W), by the rule of `learners.frames`."""
    if frames.ndim == 3:
        return frames.unsqueeze(1)
    return frames.movedim(-1, 1) if frames.shape[-1] <= 4 else frames


def _write_pt2(graph: StepGraph, inputs: Mapping[str, Tensor], text: str, path: Path) -> None:
    torch.export.save(_exported_program(graph, inputs), path, extra_files={METADATA: text})


def _write_onnx(graph: StepGraph, inputs: Mapping[str, Tensor], text: str, path: Path) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needed(module, f"an .onnx file is made and checked with {module}", "onnx")
    program = torch.onnx.export(
        _exported_program(graph, inputs),
        dynamo=True,
        verbose=False,
        input_names=list(inputs),
        output_names=list(graph(*inputs.values())),
    )
    if program is None:
        raise ExportError("torch.onnx gave no program: export to .pt2 instead")
    program.model.metadata_props[METADATA] = text
    program.save(path, external_data=False)


def _exported_program(graph: StepGraph, inputs: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("n", min=1)
    shapes = ({0: batch},) * len(inputs)
    try:
        with _shapes_unchecked():
            return torch.export.export(graph, tuple(inputs.values()), dynamic_shapes=(shapes,))
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ExportError(
            f"torch.export cannot follow the model ({type(error).__name__}: {first}): export to .safetensors instead"
        ) from error


@contextmanager
def _shapes_unchecked() -> Iterator[None]:
    """Without jaxtyping's checks, where they are on: comparing sizes would fix the number of streams in the graph."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _compare(model: Model, written: Any, sequences: Iterable[Sequence]) -> Verified:
    """Act with both on the same observations, from the same beginning, each remembering for itself."""
    rows, difference, others = 0, 0.0, 0
    for observation, first in sequences:
        original, rng = ModelPolicy(model), np.random.default_rng(0)
        state, other_state = original.initial_state(first.shape[1]), written.initial_state(first.shape[1])
        for t in range(len(first)):
            seen = {name: value[t] for name, value in observation.items()}
            ours, state = original.act(seen, state, first[t], rng, greedy=True)
            theirs, other_state = written.act(seen, other_state, first[t], rng, greedy=True)
            action, other = ours.pop("action"), theirs.pop("action")
            if action.dtype.kind == "f":
                ours["action"], theirs["action"] = action, other
            else:
                others += int((action != other).reshape(len(action), -1).any(1).sum())
                difference = max(difference, _less_likely(written, ours, action, other))
            difference = max(
                [difference, *(_distance(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())]
            )
            rows += len(action)
    return Verified(rows, difference, others)


def _less_likely(written: Any, ours: dict[str, np.ndarray], action: np.ndarray, other: np.ndarray) -> float:
    """Half of what the other discrete actions lack in log-probability: as little as the outputs differ, if by a tie."""
    if not isinstance(written, ExportedPolicy):  # the same model: its parameters are all there is to compare
        return 0.0
    dist = written.distribution(ours)
    found, wanted = (dist.log_prob(torch.from_numpy(each)) for each in (other, action))
    return float((wanted - found).abs().max()) / 2


def _distance(expected: np.ndarray, got: np.ndarray) -> float:
    """The largest difference of two arrays; infinite where one of them is not a number."""
    apart = np.abs(got.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
