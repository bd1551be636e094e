"""Running mean and variance of a stream of values, the same on all ranks."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean, variance and count of everything seen, as buffers, so that they are saved and published with the weights.

    Until the first update it is the identity (mean 0, variance 1).
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        """Starts empty.

        Args:
            shape: of one row's value; each coordinate has its own moments.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(
        self,
        batch: Float[Tensor, "*rows_and_shape"],
        mask: Float[Tensor, "*rows"],
        all_reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Merges the masked-in rows of all ranks into the moments (Chan et al.'s parallel variance).

        Args:
            batch: values, the mask's shape followed by one row's shape.
            mask: 1 where the row counts.
            all_reduce: sums a tensor over ranks; None: this is the only one.
        """
        rows = batch.reshape(-1, *self.mean.shape).double()
        weight = mask.reshape(-1, *[1] * self.mean.ndim).double()
        # Sums around the running mean, in float64, so that one all-reduce suffices without cancellation.
        shifted = (rows - self.mean) * weight
        count, first = weight.sum(), shifted.sum(0)
        sums = torch.cat([count.reshape(1), first.flatten(), (shifted * (rows - self.mean)).sum(0).flatten()])
        sums = sums if all_reduce is None else all_reduce(sums)
        first, second = (part.reshape(self.mean.shape) for part in sums[1:].chunk(2))
        self._merge(sums[0], first, second)

    def _merge(self, count: Tensor, first: Tensor, second: Tensor) -> None:
        total = (self.count + count).clamp(min=1)
        delta = first / count.clamp(min=1)
        scatter = second - delta * first + delta.square() * self.count * count / total
        seen = self.count + count > 0
        self.var.copy_(torch.where(seen, (self.var * self.count + scatter) / total, self.var))
        self.mean.add_(delta * count / total)
        self.count.add_(count)

    def normalise(self, x: Float[Tensor, "*any"], clip: float = 10.0) -> Float[Tensor, "*any"]:
        """`x` minus the mean, over the standard deviation, limited to +-clip."""
        return ((x - self.mean) * self.scale()).clamp(-clip, clip)

    def scale(self) -> Tensor:
        """One over the standard deviation: what a value is multiplied by to be of unit spread around its mean."""
        return (self.var + 1e-8).rsqrt()
