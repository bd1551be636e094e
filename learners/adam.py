"""Adam (Kingma and Ba, arXiv:1412.6980) by torch's fused kernel alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BETAS = 0.9, 0.999


@dataclass(frozen=True)
class Moments:
    """What Adam remembers of one parameter: how often it was moved, and two running means of its gradient."""

    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def of(cls, parameter: Tensor) -> "Moments":
        """Those of a parameter that was never moved, in its own memory format: the kernel pairs them as they lie."""
        zeros = [torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2)]
        return cls(torch.zeros((), device=parameter.device), *zeros)


class Adam:
    """The numbers of `torch.optim.Adam(fused=True)`, bit for bit, without its general part.

    That part costs 1.5 s of start-up, since it loads torch's compiler, and in every step of a small network as long as
    the network's forward pass. A parameter without a gradient is left as it is.

    Args:
        parameters: to move, float32.
        lr: learning rate; may be set between steps.
        eps: added to the root of the second mean.
    """

    def __init__(self, parameters: Sequence[Tensor], *, lr: float, eps: float = 1e-5) -> None:
        self.parameters, self.lr, self.eps = list(parameters), lr, eps
        self.moments: dict[int, Moments] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        reached = {index: own.grad for index, own in enumerate(self.parameters) if own.grad is not None}
        if not reached:
            return
        for index in reached:
            if index not in self.moments:
                self.moments[index] = Moments.of(self.parameters[index])
        moments = [self.moments[index] for index in reached]
        steps = [own.step for own in moments]
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            [self.parameters[index] for index in reached],
            list(reached.values()),
            [own.exp_avg for own in moments],
            [own.exp_avg_sq for own in moments],
            [],
            steps,
            lr=self.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, by parameter number and name: "3/exp_avg"."""
        return {
            f"{index}/{name}": value for index, own in sorted(self.moments.items()) for name, value in vars(own).items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.moments = {}
        for index in sorted({int(key.partition("/")[0]) for key in state}):
            own = self.moments[index] = Moments.of(self.parameters[index])
            for name, value in vars(own).items():
                value.copy_(state[f"{index}/{name}"])
