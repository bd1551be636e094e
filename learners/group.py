"""The data-parallel world of learners: torch.distributed where there are several, nothing at all where there is one."""

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """The ranks that minimise one loss together.

    All ranks call every method in the same order and wait for the slowest. A rank that dies makes the others raise
    at their next call, at the latest after the time-out; the group must then be formed anew by all.

    Attributes:
        rank: this learner's number, 0 publishes and saves.
        size: number of learners.
    """

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The element-wise sum over ranks; the tensor itself where there is one rank."""
        if self.size == 1:
            return tensor
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    def sum_gradients(self, module: nn.Module) -> None:
        """Replace each parameter's gradient by its sum over ranks, in one message.

        A parameter without a gradient on this rank counts as zero, since another rank's rows may have reached it.
        """
        if self.size == 1:
            return
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(parameters, gradients, pieces, strict=True):
            parameter.grad = gradient.copy_(piece.view_as(gradient))

    def broadcast(self, module: nn.Module) -> None:
        """Give every rank the parameters and statistics of rank 0."""
        if self.size == 1:
            return
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, src=0)


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
    return Group(rank, size)


def leave() -> None:
    """Leave the group, if this process is in one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
