"""A model's arithmetic for the handful of rows that an actor has, by numpy, whose calls take a fraction of torch's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from torch import nn

from learners.model import Model
from learners.nets.encoders import VectorEncoder

Layer = tuple[np.ndarray, np.ndarray, Callable[..., Any] | None]
"""Weights (in, out), bias, and what follows, which takes `out`; None: nothing."""


@dataclass(frozen=True)
class Handful:
    """What the heads give, of a model of vectors without a core.

    The numbers are the model's but for their last bits, since sums are taken in another order.

    Attributes:
        names: of the columns that encoders see.
        scales: mean and factor of those that are normalised.
        encoder: the policy's layers.
        critic: those of the critic's encoder; None: it reads what the policy's gives.
        policy: the head.
        value: the head.
    """

    names: tuple[str, ...]
    scales: Mapping[str, tuple[np.ndarray, np.ndarray]]
    encoder: Sequence[Layer]
    critic: Sequence[Layer] | None
    policy: Layer
    value: Layer

    @classmethod
    def of(cls, model: Model) -> "Handful | None":
        """With the weights that the model has now; None: it is another kind of model."""
        encoder, critic, moments = model.encoder, model.value_encoder, model.moments_by_column
        if model.core is not None or model.precision != "fp32":
            return None
        if not _plain(encoder):
            return None
        if critic is not None and not (_plain(critic) and critic.names == encoder.names):
            return None
        return cls(
            encoder.names,
            {n: (m.mean.numpy(), m.scale().numpy()) for n, m in moments.items() if n in encoder.names},
            _layers(encoder),
            None if critic is None else _layers(critic),
            _layer(model.policy.linear),
            _layer(model.value.linear),
        )

    def __call__(self, observation: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Of columns (n, ...), the policy head's output (n, 1, size) and values (n, 1): rows of one item each."""
        seen = self._seen(observation)
        context = _through(seen, self.encoder)
        critic = context if self.critic is None else _through(seen, self.critic)
        return _through(context, [self.policy])[:, None], _through(critic, [self.value])

    def _seen(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """What encoders see: columns side by side, normalised."""
        columns = []
        for name in self.names:
            column = observation[name]
            if name in self.scales:
                mean, factor = self.scales[name]
                column = np.minimum(np.maximum((column - mean) * factor, -10), 10)
            columns.append(column.reshape(len(column), -1))
        joined = columns[0] if len(columns) == 1 else np.concatenate(columns, 1)
        return joined.astype(np.float32, copy=False)


def _plain(encoder: nn.Module | None) -> TypeGuard[VectorEncoder]:
    """Whether an encoder is of linear layers and the activation of its spec in turn, and of nothing else."""
    if type(encoder) is not VectorEncoder:
        return False
    activation = nn.Tanh if encoder.spec.activation == "tanh" else nn.ReLU
    return [type(layer) for layer in encoder.layers] == [nn.Linear, activation] * (len(encoder.layers) // 2)


def _layers(encoder: VectorEncoder) -> list[Layer]:
    activation = np.tanh if encoder.spec.activation == "tanh" else _relu
    return [_layer(layer, activation) for layer in encoder.layers if isinstance(layer, nn.Linear)]


def _layer(linear: nn.Linear, activation: Callable[..., Any] | None = None) -> Layer:
    return linear.weight.detach().numpy().T, linear.bias.detach().numpy(), activation


def _relu(x: np.ndarray, *, out: np.ndarray) -> None:
    np.maximum(x, 0, out=out)


def _through(x: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    for weights, bias, activation in layers:
        x = x @ weights
        x += bias
        if activation is not None:
            activation(x, out=x)
    return x
