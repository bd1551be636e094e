"""Recurrent cores: what a policy remembers between the rows of an episode.

A core is one function of windows, used alike by the policy, row by row, and by the learner, on whole windows: both come
to the same numbers, wherever a window starts and wherever episodes end inside it.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@runtime_checkable
class Core(Protocol):
    """What a core's description builds: a module.

    Attributes:
        hidden: width of its output.
        state: numbers that it remembers from row to row; zeros stand for nothing seen yet.
    """

    hidden: int
    state: int

    def __call__(
        self, features: Float[Tensor, "B T F"], state: Float[Tensor, "B S"], first: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B S"]]:
        """The output of each row, and the state after the last one.

        Args:
            features: of each row.
            state: before row 0.
            first: where an episode begins: nothing is remembered from before that row.
        """
        ...


@runtime_checkable
class CoreSpec(Protocol):
    """The description of a core: any value with this method."""

    def build(self, features: int) -> Core:
        """The module, for encoder features of width `features`."""
        ...


@dataclass(frozen=True)
class Gru:
    """A gated recurrent unit.

    Attributes:
        hidden: width of its state, which is also its output.
    """

    hidden: int = 128

    def build(self, features: int) -> "GruCore":
        """The module, for encoder features of width `features`."""
        return GruCore(features, self.hidden)


class GruCore(nn.Module):
    """A GRU over windows whose state is emptied wherever an episode begins."""

    def __init__(self, features: int, hidden: int) -> None:
        """Makes the cell: input of width `features`, state of width `hidden`."""
        super().__init__()
        self.hidden = self.state = hidden
        self.gru = nn.GRU(features, hidden, batch_first=True)
        for name, parameter in self.gru.named_parameters():
            nn.init.zeros_(parameter) if "bias" in name else nn.init.orthogonal_(parameter)

    def forward(
        self, features: Float[Tensor, "B T F"], state: Float[Tensor, "B H"], first: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B H"]]:
        """The state after each row, and after the last one.

        Args:
            features: of each row.
            state: before row 0.
            first: where an episode begins: the state is zero before that row.
        """
        state = state * ~first[:, :1]
        # One row needs no look at the data, so that acting can be exported as a graph.
        if first.shape[1] == 1 or not first[:, 1:].any():
            out, _ = self.gru(features, state.unsqueeze(0))
        else:
            out = self._by_episode(features, state, first)
        return out, out[:, -1]

    def _by_episode(self, features: Tensor, state: Tensor, first: Tensor) -> Tensor:
        # Every stretch between resets becomes a sequence of its own, so that one call of the fused kernel does them
        # all; a loop over rows costs one kernel per row.
        batch, rows = first.shape
        begins = first.clone()
        begins[:, 0] = True
        stretch = begins.flatten().cumsum(0) - 1
        starts = begins.flatten().nonzero().squeeze(1)
        position = torch.arange(batch * rows, device=first.device) - starts[stretch]
        shape = (starts.numel(), int(position.max()) + 1)
        padded = features.new_zeros(*shape, features.shape[-1])
        padded[stretch, position] = features.flatten(0, 1)
        initial = state.new_zeros(shape[0], self.hidden)
        initial[stretch[::rows]] = state
        out, _ = self.gru(padded, initial.unsqueeze(0))
        return out[stretch, position].unflatten(0, (batch, rows))
