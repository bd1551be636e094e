"""Adam (Kingma and Ba, arXiv:1412.6980) by torch's fused kernel alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BETAS = 0.9, 0.999


@dataclass
class Moments:
    """What Adam remembers of one parameter: how often it was moved, and two running means of its gradient."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: int = 0

    @classmethod
    def of(cls, parameter: Tensor) -> "Moments":
        """Those of a parameter that was never moved, in its own memory format: the kernel pairs them as they lie."""
        first, second = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
        return cls(first, second)

    def state(self) -> dict[str, Tensor]:
        """By name, with the number of steps as torch has it."""
        return {"step": self.counted(), "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def counted(self) -> Tensor:
        """The number of steps on the parameter's device."""
        return torch.tensor(float(self.steps), device=self.exp_avg.device)


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
    def step(self, *, over: float = 1.0) -> None:
        """Move every parameter that has a gradient.

        Args:
            over: what gradients are divided by, in place; to do that here costs nothing.
        """
        reached = {index: own.grad for index, own in enumerate(self.parameters) if own.grad is not None}
        if not reached:
            return
        for index in reached:
            if index not in self.moments:
                self.moments[index] = Moments.of(self.parameters[index])
        moments = [self.moments[index] for index in reached]
        for own in moments:
            own.steps += 1
        # One tensor for all that were moved equally often: to add 1 to each would take as long as the kernel.
        counts = {own.steps: own for own in moments}
        counted = {steps: own.counted() for steps, own in counts.items()}
        torch._fused_adam_(
            [self.parameters[index] for index in reached],
            list(reached.values()),
            [own.exp_avg for own in moments],
            [own.exp_avg_sq for own in moments],
            [],
            [counted[own.steps] for own in moments],
            lr=self.lr,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
            grad_scale=None if over == 1.0 else torch.tensor(over, device=moments[0].exp_avg.device),
        )

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts, by parameter number and name: "3/exp_avg"."""
        moments = sorted(self.moments.items())
        return {f"{index}/{name}": value for index, own in moments for name, value in own.state().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.moments = {}
        for index in sorted({int(key.partition("/")[0]) for key in state}):
            own = self.moments[index] = Moments.of(self.parameters[index])
            own.steps = int(state[f"{index}/step"])
            for name in ("exp_avg", "exp_avg_sq"):
                getattr(own, name).copy_(state[f"{index}/{name}"])
