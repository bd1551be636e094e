"""A small causal transformer as a recurrent core: each row attends to the last rows of its episode.

Pre-norm layers (Xiong et al., arXiv:2002.04745) and learned biases by distance (Raffel et al., arXiv:1910.10683). As in
Transformer-XL (Dai et al., arXiv:1901.02860), what is remembered of a row is the input that each layer had of it, so a
row costs the policy one row's work, and layer upon layer looks further back: `layers * memory` rows in all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from learners.nets.heads import orthogonal
from learners.objective import MethodError


@dataclass(frozen=True)
class Transformer:
    """A causal transformer over the rows of an episode.

    Attributes:
        hidden: width of its rows and of its output.
        layers: how many.
        heads: of attention; they divide `hidden`.
        memory: rows before its own that each layer attends to. The recorded state has `layers * memory * hidden`
            numbers a row.
    """

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    memory: int = 16

    def __post_init__(self) -> None:
        if min(self.hidden, self.layers, self.heads, self.memory) < 1 or self.hidden % self.heads:
            raise MethodError(f"{self}: wanted numbers of at least 1, and heads that divide hidden")

    def build(self, features: int) -> "TransformerCore":
        """The module, for encoder features of width `features`."""
        return TransformerCore(self, features)


class TransformerCore(nn.Module):
    """The module of `Transformer`.

    Its state is flat: the inputs of every layer for the last `memory` rows, (layers, memory, hidden), oldest first, and
    how many of these rows there are; the others are zero.
    """

    def __init__(self, spec: Transformer, features: int) -> None:
        """Makes the layers, for encoder features of width `features`."""
        super().__init__()
        self.hidden, self.memory = spec.hidden, spec.memory
        self.state = spec.layers * spec.memory * spec.hidden + 1
        self.shape = (spec.layers, spec.memory, spec.hidden)
        self.input = orthogonal(nn.Linear(features, spec.hidden), gain=1.0)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(spec.hidden)

    def forward(
        self, features: Float[Tensor, "B T F"], state: Float[Tensor, "B S"], first: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B S"]]:
        """See `learners.nets.cores.Core`."""
        memories, held = state[:, :-1].unflatten(1, self.shape), state[:, -1]
        distance, seen = self._attended(held, first)
        rows, remembered = self.input(features), []
        for layer, memory in zip(self.layers, memories.unbind(1), strict=True):
            known = torch.cat([memory, rows], 1)
            remembered.append(known[:, -self.memory :])
            rows = layer(rows, known, distance, seen)
        held = _held(held, first).clamp(max=self.memory)
        age = torch.arange(self.memory, 0, -1, device=held.device)
        kept = torch.stack(remembered, 1) * (age <= held[:, None])[:, None, :, None]
        return self.norm(rows), torch.cat([kept.flatten(1), held[:, None]], 1)

    def _attended(self, held: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """How far back from each row each known one lies, (T, M+T), and which are attended to, (B, 1, T, M+T)."""
        row = torch.arange(first.shape[1], device=first.device)
        known = torch.arange(-self.memory, first.shape[1], device=first.device)
        distance = row[:, None] - known
        episode = first.long().cumsum(1)
        of_known = torch.cat([torch.zeros_like(episode[:, :1]).expand(-1, self.memory), episode], 1)
        there = (known >= -held[:, None]).unsqueeze(1)
        near = (distance >= 0) & (distance <= self.memory)
        return distance, (near & there & (episode[:, :, None] == of_known[:, None])).unsqueeze(1)


class Layer(nn.Module):
    """One layer: attention, then two linear layers, each on a normalised copy of the rows and added to them."""

    def __init__(self, spec: Transformer) -> None:
        super().__init__()
        width, small = spec.hidden, (2 * spec.layers) ** -0.5
        self.heads = spec.heads
        self.before_attention, self.before_linear = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = orthogonal(nn.Linear(width, width), gain=1.0)
        self.key_value = nn.Linear(width, 2 * width)
        self.attended = orthogonal(nn.Linear(width, width), gain=small)
        self.widened = orthogonal(nn.Linear(width, 2 * width))
        self.narrowed = orthogonal(nn.Linear(2 * width, width), gain=small)
        self.bias = nn.Parameter(torch.zeros(spec.heads, spec.memory + 1))

    def forward(
        self, rows: Float[Tensor, "B T H"], known: Float[Tensor, "B K H"], distance: Tensor, seen: Tensor
    ) -> Float[Tensor, "B T H"]:
        """The rows after it.

        Args:
            rows: of the window.
            known: the remembered rows and those of the window.
            distance: from each row back to each known one, (T, K).
            seen: which known rows each row attends to, (B, 1, T, K).
        """
        query = self._by_head(self.query(self.before_attention(rows)))
        key, value = map(self._by_head, self.key_value(self.before_attention(known)).chunk(2, -1))
        bias = self.bias[:, distance.clamp(0, self.bias.shape[1] - 1)]
        weights = torch.where(seen, bias, -torch.inf)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=weights)
        rows = rows + self.attended(attended.transpose(1, 2).flatten(2))
        return rows + self.narrowed(gelu(self.widened(self.before_linear(rows))))

    def _by_head(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _held(held: Tensor, first: Tensor) -> Tensor:
    """Rows of the present episode up to the end of a window that `held` rows are known before."""
    rows = first.shape[1]
    last = torch.where(first, torch.arange(rows, device=first.device), -1).amax(1)
    return torch.where(last >= 0, (rows - last).to(held.dtype), held + rows)
