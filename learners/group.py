"""The data-parallel world of learners: torch.distributed where there are several, nothing at all where there is one."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as distributed

# Before any group is formed: its functions take the group there is when they are defined for their default, and whoever
# imports it later (torch's optimisers do) would keep that group, and its threads, alive beyond `leave`. A thread that
# still wants the interpreter when that ends brings the process down.
import torch.distributed.nn.functional
from torch import Tensor, nn
from torch.nn.functional import pad

from learners.shared_sum import SharedSum, one_host
from learners.sum_clock import SumClock


@dataclass
class Group:
    """The ranks that minimise one loss together.

    All ranks call every method in the same order and wait for the slowest. A rank that dies makes the others raise
    at their next call, at the latest after the time-out; the group must then be formed anew by all.

    Attributes:
        rank: this learner's number, 0 publishes and saves.
        size: number of learners.
        shares_memory: whether gradients are summed through memory that all ranks share.
        clock: of sums over ranks.
    """

    rank: int = 0
    size: int = 1
    shares_memory: bool = False
    clock: SumClock = field(default_factory=SumClock, compare=False)
    _shared: SharedSum | None = field(default=None, init=False)

    def sum(self, tensor: Tensor) -> Tensor:
        """The element-wise sum over ranks; the tensor itself where there is one rank."""
        if self.size == 1:
            return tensor
        return _total(tensor, self.clock)

    def rows(self, own: Tensor) -> "Joined":
        """The rows of all ranks, to each of which this one adds as many as it has.

        Args:
            own: any column of this rank's rows, (n, ...); n may be 0 and differ between ranks.
        """
        if self.size == 1:
            return Joined()
        counts = torch.zeros(self.size, dtype=torch.int64, device=own.device)
        counts[self.rank] = len(own)
        numbers = self.sum(counts).tolist()
        return Joined(sum(numbers[: self.rank]), sum(numbers[self.rank + 1 :]), alone=False, clock=self.clock)

    def sum_gradients(self, module: nn.Module) -> None:
        """Replace each parameter's gradient by its sum over ranks, in one message.

        A parameter without a gradient on this rank counts as zero, since another rank's rows may have reached it.
        """
        if self.size == 1:
            return
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        with self.clock.running(gradients[0].device):
            pieces = self._summed(gradients).split([gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(parameters, gradients, pieces, strict=True):
            parameter.grad = gradient.copy_(piece.view_as(gradient))

    def _summed(self, parts: list[Tensor]) -> Tensor:
        """The parts in one vector, summed over ranks: through shared memory on a processor, else by all-reduce."""
        if self.shares_memory and self._shared is None:
            self._shared = SharedSum.make(sum(part.numel() for part in parts), rank=self.rank, size=self.size)
            self.shares_memory = self._shared is not None
        if self._shared is not None and self.shares_memory:
            return self._shared.sum(parts)
        flat = torch.cat([part.reshape(-1) for part in parts])
        distributed.all_reduce(flat)
        return flat

    def gather(self, text: str) -> list[str]:
        """Every rank's text, in the order of ranks."""
        if self.size == 1:
            return [text]
        texts: list[str] = [""] * self.size
        distributed.all_gather_object(texts, text)
        return texts

    def broadcast(self, module: nn.Module) -> None:
        """Give every rank the parameters and statistics of rank 0."""
        if self.size == 1:
            return
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, src=0)


@dataclass(frozen=True)
class Joined:
    """The rows of all ranks, one rank's after the other's.

    Attributes:
        before: how many are of lower ranks: the place of this rank's first one.
        after: how many are of higher ranks.
        alone: there is one rank: its columns are whole as they are.
        clock: the group's.
    """

    before: int = 0
    after: int = 0
    alone: bool = True
    clock: SumClock = field(default_factory=SumClock, compare=False)

    def __call__(self, own: Tensor) -> Tensor:
        """A column of all rows, from this rank's part of it (n, ...).

        A gradient comes back from the losses of all ranks, who must then all make the backward pass.
        """
        if self.alone:
            return own
        if own.dtype == torch.bool:  # which cannot be added up
            return self(own.to(torch.uint8)).bool()
        # Zeros where the others' rows are, so that a sum gathers: their numbers of rows may differ.
        return _Sum.apply(pad(own, (0, 0) * (own.ndim - 1) + (self.before, self.after)), self.clock)


class _Sum(torch.autograd.Function):
    """The sum over ranks, and of its gradients on the way back: each rank's loss is a share of one."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, clock: SumClock) -> Tensor:
        ctx.clock = clock
        return _total(tensor, clock)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _total(gradient, ctx.clock), None


def _total(tensor: Tensor, clock: SumClock) -> Tensor:
    """The element-wise sum over ranks."""
    total = tensor.clone(memory_format=torch.contiguous_format)
    with clock.running(total.device):
        distributed.all_reduce(total)
    return total


def join(address: str, rank: int, size: int, *, device: torch.device, seconds: float = 600.0) -> Group:
    """Form the group: returns when all `size` ranks have called it.

    Args:
        address: where rank 0 listens, "tcp://127.0.0.1:29500".
        rank: this learner's number.
        size: number of learners.
        device: "cuda" takes NCCL, anything else gloo.
        seconds: after which a rank that waits for another gives up.
    """
    if size > 1:
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=address,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=seconds),
        )
    return Group(rank, size, shares_memory=size > 1 and device.type == "cpu" and one_host())


def leave() -> None:
    """Leave the group, if this process is in one; its threads end."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
