"""Encoders: from the observation columns of a row to a vector of features.

A spec is a frozen dataclass; `build` makes the module for an observation. The module takes a dict of tensors (n, ...)
by column name, gives (n, features), and has the attribute `features`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from learners.nets.heads import orthogonal
from replay.schema import Column


class EncoderError(ValueError):
    """An encoder that does not fit the observation; says which column and what would fit."""


@dataclass(frozen=True)
class Mlp:
    """Fully connected layers over all columns side by side, for vectors and scalars.

    Attributes:
        widths: of each layer.
        activation: after each layer.
    """

    widths: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"

    def build(self, columns: Mapping[str, Column]) -> "VectorEncoder":
        """The module for an observation."""
        return VectorEncoder(self, columns)


@dataclass(frozen=True)
class Nature:
    """The convolutional encoder of Mnih et al. 2015, for images of at least 36x36.

    Attributes:
        features: width of the last, fully connected layer.
    """

    features: int = 512

    def build(self, columns: Mapping[str, Column]) -> "ImageEncoder":
        """The module for an observation with one image column; other columns join before the last layer."""
        name, (channels, _, _) = _image_column(columns)
        layers = nn.Sequential(
            orthogonal(nn.Conv2d(channels, 32, 8, 4)),
            nn.ReLU(inplace=True),
            orthogonal(nn.Conv2d(32, 64, 4, 2)),
            nn.ReLU(inplace=True),
            orthogonal(nn.Conv2d(64, 64, 3, 1)),
        )
        return ImageEncoder(columns, name, layers, self.features, normalised=False)


@dataclass(frozen=True)
class SmallConv:
    """A light convolutional encoder for small images (32x32), an eighth of `Nature`'s work or less.

    The image is folded 2x2 into channels first, which quarters the work of every later layer; nothing is padded, since
    padding would tell the position of a texture. Height and width must be even.

    Attributes:
        features: width of the last layer, which is normalised (LayerNorm).
    """

    features: int = 128

    def build(self, columns: Mapping[str, Column]) -> "ImageEncoder":
        """The module for an observation with one image column; other columns join before the last layer."""
        name, (channels, height, width) = _image_column(columns)
        if height % 2 or width % 2:
            raise EncoderError(f"{name}: SmallConv halves the image, so {height}x{width} should be even: pad it")
        layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            orthogonal(nn.Conv2d(4 * channels, 16, 3, 2)),
            nn.ReLU(inplace=True),
            orthogonal(nn.Conv2d(16, 32, 3, 1)),
            nn.ReLU(inplace=True),
            orthogonal(nn.Conv2d(32, 32, 3, 2)),
        )
        return ImageEncoder(columns, name, layers, self.features, normalised=True)


class VectorEncoder(nn.Module):
    """The module of `Mlp`."""

    def __init__(self, spec: Mlp, columns: Mapping[str, Column]) -> None:
        """Makes the layers for these columns."""
        super().__init__()
        images = [name for name, column in columns.items() if column.dtype == "uint8" and len(column.shape) == 3]
        if images:
            raise EncoderError(f"{images[0]} is an image of {columns[images[0]].shape}: Mlp reads vectors, use Nature")
        self.spec, self.names = spec, tuple(columns)
        width, layers = sum(math.prod(column.shape) for column in columns.values()), []
        for size in spec.widths:
            layers += [orthogonal(nn.Linear(width, size)), nn.Tanh() if spec.activation == "tanh" else nn.ReLU()]
            width = size
        self.layers = nn.Sequential(*layers)
        self.features = width

    def forward(self, observation: Mapping[str, Tensor]) -> Float[Tensor, "n F"]:
        """Features of each row."""
        return self.layers(_side_by_side(observation, self.names))


class ImageEncoder(nn.Module):
    """The module of the convolutional encoders: layers over the image, a ReLU, then one linear layer."""

    def __init__(
        self, columns: Mapping[str, Column], image: str, layers: nn.Sequential, features: int, *, normalised: bool
    ) -> None:
        """Makes the last layer, after measuring what the convolutions give.

        Args:
            columns: of the observation.
            image: which of them the layers read.
            layers: from (n, C, H, W) floats in [0, 1] to (n, c, h, w), the last one's ReLU left out.
            features: width of the output.
            normalised: whether a LayerNorm follows the last linear layer.

        Raises:
            EncoderError: the image is too small for the layers; gives its size.
        """
        super().__init__()
        self.image, self.others = image, tuple(name for name in columns if name != image)
        self.layers = nn.utils.convert_conv2d_weight_memory_format(layers, torch.channels_last)
        width = self._convolved_size(_image_shape(columns[image]))
        width += sum(math.prod(columns[name].shape) for name in self.others)
        self.linear = orthogonal(nn.Linear(width, features))
        self.norm = nn.LayerNorm(features) if normalised else nn.Identity()
        self.features = features

    def _convolved_size(self, shape: tuple[int, int, int]) -> int:
        # Never on the "meta" device, whose convolutions import a second's worth of modules.
        weights = {name: torch.zeros(each.shape, device="cpu") for name, each in self.layers.state_dict().items()}
        try:
            with torch.no_grad():
                return functional_call(self.layers, weights, torch.zeros(1, *shape, device="cpu")).numel()
        except RuntimeError as problem:
            raise EncoderError(f"{self.image}: an image of {shape} is too small for this encoder") from problem

    def forward(self, observation: Mapping[str, Tensor]) -> Float[Tensor, "n F"]:
        """Features of each row; images are uint8, scaled to [0, 1] here."""
        image = observation[self.image]
        # The ReLU comes last: else its gradient came back in another memory layout than its own, 20 times as slow.
        flat = self.layers(self._prepared(image)).flatten(1).relu_()
        if self.others:
            flat = torch.cat([flat, _side_by_side(observation, self.others)], 1)
        return self.norm(self.linear(flat)).relu()

    def _prepared(self, image: Tensor) -> Tensor:
        image = image.unsqueeze(1) if image.ndim == 3 else image
        device = image.device.type
        # Straight to the precision of the convolutions: going through float32 first would copy the batch twice.
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.linear.weight.dtype
        # Planes are laid side by side as bytes, then widened: 3x faster than letting `to` do both at once.
        floats = torch.stack(image.unbind(1), -1).permute(0, 3, 1, 2).to(dtype)
        return floats.mul_(1 / 255) if image.dtype == torch.uint8 else floats


def _side_by_side(observation: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor:
    # Widths are spelt out, since a batch may be empty: a learner can have fewer decided rows than minibatches.
    columns = [observation[name] for name in names]
    flat = [column.reshape(column.shape[0], math.prod(column.shape[1:])).float() for column in columns]
    return flat[0] if len(flat) == 1 else torch.cat(flat, 1)


def _image_column(columns: Mapping[str, Column]) -> tuple[str, tuple[int, int, int]]:
    names = [name for name, column in columns.items() if len(column.shape) in (2, 3)]
    if len(names) != 1:
        found = {name: column.shape for name, column in columns.items()}
        raise EncoderError(f"a convolutional encoder reads one image (C, H, W); the observation has {found}")
    return names[0], _image_shape(columns[names[0]])


def _image_shape(column: Column) -> tuple[int, int, int]:
    shape = column.shape if len(column.shape) == 3 else (1, *column.shape)
    if shape[2] in (1, 3, 4) and shape[0] > 4:
        raise EncoderError(f"an image of {shape} has its channels last: transpose it to (C, H, W)")
    return shape[0], shape[1], shape[2]
