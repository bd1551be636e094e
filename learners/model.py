"""The model: encoder, optional recurrent core, policy and value heads, the objectives' heads and their slow copies."""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from learners.augment import centre_crop
from learners.frames import cropped_column, is_image, stacked_column
from learners.group import Group
from learners.masks import ACTION_MASK, choices_of
from learners.nets.cores import Core, CoreSpec
from learners.nets.encoders import ImageEncoder, VectorEncoder
from learners.nets.heads import PolicyHead, ValueHead
from learners.normalise import RunningMoments
from learners.objective import Batch, MethodError, Objective
from learners.output import Output
from replay.schema import Column

ACTING_PARTS = ("encoder", "core", "policy", "value", "value_encoder", "moments")
"""Parts needed to act: these alone travel to the actors."""


@runtime_checkable
class EncoderSpec(Protocol):
    """The description of an encoder: any value with this method."""

    def build(self, columns: Mapping[str, Column]) -> VectorEncoder | ImageEncoder:
        """The module: observation columns (n, ...) to (n, features), with the attribute `features`."""
        ...


@dataclass(frozen=True)
class ActorCritic:
    """The description of a model; `build` makes it, the same in learners, actors and evaluators.

    Attributes:
        encoder: observations to features.
        core: features to context over time; None: the context is the features.
        value_encoder: the critic's own encoder; None: the critic reads the policy's context.
        stack: frames per stack, for images.
        crop: side of the middle square of images that encoders see, in pixels, unless an augmentation has cut out
            another one; 0: all of them.
        normalise: whether float observations, and rewards by their returns, are divided by running statistics
            (a `Normalise` update must feed them).
        precision: "bf16" runs encoders under autocast, heads and losses stay fp32.
        record_distribution: whether the policy records its distribution's parameters with each row, from which an
            objective or a trust region computes the exact KL (`learners.behaviour`).
        squashed: whether the Gaussian over a Box's actions is squashed by tanh into its bounds; else the environment
            clips what it receives.
    """

    encoder: EncoderSpec
    core: CoreSpec | None = None
    value_encoder: EncoderSpec | None = None
    stack: int = 1
    crop: int = 0
    normalise: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    record_distribution: bool = False
    squashed: bool = False

    def build(
        self, observation: Mapping[str, Column], action_space: gym.Space, objectives: Iterable[Objective] = ()
    ) -> "Model":
        """The model for an environment.

        Args:
            observation: columns of one row's observation, single frames.
            action_space: decides the policy's distribution.
            objectives: whose heads and slow copies to add; actors and evaluators need none.
        """
        return Model(self, observation, action_space, objectives)


class Model(nn.Module):
    """See `ActorCritic`."""

    def __init__(
        self,
        spec: ActorCritic,
        observation: Mapping[str, Column],
        action_space: gym.Space,
        objectives: Iterable[Objective] = (),
    ) -> None:
        super().__init__()
        self.spec, self.precision, self.stack = spec, spec.precision, spec.stack
        self.pieces, self.group = 1, Group()
        self.image_columns = [name for name, column in observation.items() if is_image(column)]
        self.observation_columns = {
            name: stacked_column(column, spec.stack) if is_image(column) else column
            for name, column in observation.items()
        }
        self.choices = choices_of(observation, action_space)
        self.masks = (ACTION_MASK,) if self.choices else ()
        seen = {
            name: cropped_column(column, spec.crop) if spec.crop and name in self.image_columns else column
            for name, column in self.observation_columns.items()
            if name not in self.masks
        }
        self.encoder = spec.encoder.build(seen)
        self.core: Core | None = spec.core.build(self.encoder.features) if spec.core else None
        self.value_encoder = spec.value_encoder.build(seen) if spec.value_encoder else None
        self.features: int = self.encoder.features
        self.context: int = self.core.hidden if self.core else self.features
        self.policy = PolicyHead(self.context, action_space, squashed=spec.squashed, choices=self.choices)
        self.value = ValueHead(self.value_encoder.features if self.value_encoder else self.context)
        self.moments = nn.ModuleDict()
        self.moments_by_column: dict[str, RunningMoments] = {}
        if spec.normalise:
            self._add_moments(observation)
        self.heads, self.slow_parts = nn.ModuleDict(), nn.ModuleDict()
        self._add_heads(objectives)

    def _add_moments(self, observation: Mapping[str, Column]) -> None:
        floats = [name for name, column in observation.items() if column.dtype.startswith("float")]
        shapes = {name: observation[name].shape for name in floats if name not in self.masks}
        for name, shape in (shapes | {"discounted_return": ()}).items():
            self.moments_by_column[name] = self.moments[name.replace(".", "/")] = RunningMoments(shape)

    def _add_heads(self, objectives: Iterable[Objective]) -> None:
        objectives = list(objectives)
        for objective in objectives:
            for name, head in objective.heads(self).items():
                self._add_head(name, head)
        for part in dict.fromkeys(part for objective in objectives for part in objective.slow):
            slow = copy.deepcopy(self.part(part)).requires_grad_(False)
            self.slow_parts[part.replace(".", "/")] = slow

    def _add_head(self, name: str, head: nn.Module) -> None:
        """A head, unless it is there: objectives on several tables share theirs."""
        if name not in self.heads:
            self.heads[name] = head
            return
        shapes = [[parameter.shape for parameter in each.parameters()] for each in (self.heads[name], head)]
        if shapes[0] != shapes[1]:
            raise MethodError(f'two objectives want the head "{name}" with different sizes: give them the same fields')

    def part(self, path: str) -> nn.Module:
        """A part by its path: "encoder", or a piece of an objective's head, "curl.projection"."""
        return self.get_submodule(path if hasattr(self, path.split(".")[0]) else f"heads.{path}")

    def slow(self, path: str) -> nn.Module:
        """The slow copy of a part."""
        return self.slow_parts[path.replace(".", "/")]

    def observation(self, batch: Batch) -> Batch:
        """A batch's observation columns, images stacked."""
        return {name: batch[name] for name in self.observation_columns}

    def encode(
        self, observation: Mapping[str, Tensor], encoder: nn.Module | None = None
    ) -> Float[Tensor, "n features"]:
        """Features of observations (n, ...), float32, under the model's precision.

        Args:
            observation: columns by name, without time.
            encoder: another one than the model's own: a slow copy or the critic's.
        """
        return self.through(encoder or self.encoder, self.normalised(observation))

    def normalised(self, observation: Mapping[str, Tensor]) -> Batch:
        """What encoders see of observations."""
        columns = {
            name: self.moments_by_column[name].normalise(value) if name in self.moments_by_column else value
            for name, value in observation.items()
        }
        if self.spec.crop:
            columns |= {name: centre_crop(columns[name], self.spec.crop) for name in self.image_columns}
        return columns

    def through(self, encoder: nn.Module, columns: Batch) -> Tensor:
        """An encoder's features, in as many pieces as `encoding_in` says."""
        encode = partial(self._encoded, encoder)
        if self.pieces == 1 or not torch.is_grad_enabled():
            return encode(columns)
        pieces = max(1, min(self.pieces, len(next(iter(columns.values())))))
        parts = zip(*(column.tensor_split(pieces) for column in columns.values()), strict=True)
        encoded = [checkpoint(encode, dict(zip(columns, part, strict=True)), use_reentrant=False) for part in parts]
        return torch.cat(encoded)

    def _encoded(self, encoder: nn.Module, columns: Batch) -> Tensor:
        if self.precision == "fp32":  # a context that does nothing takes as long as a small layer
            return encoder(columns)
        with torch.autocast(next(iter(columns.values())).device.type, torch.bfloat16):
            return encoder(columns).float()

    @contextmanager
    def encoding_in(self, pieces: int) -> Iterator[None]:
        """Inside, what is to be differentiated goes through encoders in so many pieces.

        Only one piece's activations are in memory at a time: the forward pass keeps none, and the backward pass repeats
        it piece by piece. All that comes after the encoders sees all rows, so losses that compare rows stay what they
        are (gradient caching, Gao et al. 2021, https://arxiv.org/abs/2101.06983).
        """
        before, self.pieces = self.pieces, pieces
        try:
            yield
        finally:
            self.pieces = before

    @contextmanager
    def among(self, group: Group) -> Iterator[None]:
        """Inside, objectives that compare rows compare them with those of all learners' minibatches (`self.group`)."""
        before, self.group = self.group, group
        try:
            yield
        finally:
            self.group = before

    def compile_encoders(self) -> None:
        """Let torch.compile translate the encoders when they are first used; their parameters stay where they are."""
        for encoder in (self.encoder, self.value_encoder, *self.slow_parts.values()):
            if encoder is not None:
                encoder.compile(dynamic=True)

    def forward(self, batch: Batch) -> Output:
        """The model's output on rows (B, T).

        A core starts from the state recorded with the first row, or from what rows before it made of theirs
        (`start_state`, see `learners.burn_in`).
        """
        return Output(self, batch)

    def acting_weights(self) -> dict[str, np.ndarray]:
        """The parameters and statistics needed to act, as arrays of their own."""
        return acting_arrays(self.state_dict())

    @torch.no_grad()
    def load_acting_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over what `acting_weights` gave."""
        own = self.state_dict()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # we only read
            for name, array in weights.items():
                own[name].copy_(torch.from_numpy(array))


def acting_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Of a model's state, what is needed to act, as arrays of their own."""
    return {
        name: tensor.cpu().contiguous().numpy().copy()
        for name, tensor in tensors.items()
        if name.split(".")[0] in ACTING_PARTS
    }
