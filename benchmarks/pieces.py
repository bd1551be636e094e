"""Where the time of a learner step of Breakout PPO goes, piece by piece, and how fast it could be at best.

    python -m benchmarks.pieces                                  # 8 environments x 128 rows
    python -m benchmarks.pieces --envs 64 --rows 16 --times 20

The least processor time of many calls in one thread, which other work on the machine disturbs least. Two actors and two
learners, each with half of everything, four epochs of four minibatches. The ceiling has both cores busy all the time
with nothing but convolutions, matrix products, the optimiser and the emulator.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from actors.environments import Environment
from benchmarks.learner import CASES, batch_of, gradient_of, model_of
from learners.group import Group
from learners.policy import ModelPolicy

MINIBATCHES = 16
HALVES = 2
SHAPES = ((4, 32, 8, 4, 84), (32, 64, 4, 2, 20), (64, 64, 3, 1, 9))
"""Of Nature's convolutions: channels in and out, kernel, stride, side of the input."""
Milliseconds = dict[str, float]


@dataclass(frozen=True)
class Kernels:
    """Nature's large kernels alone, on random numbers.

    Attributes:
        rows: at once.
        dtype: of everything.
    """

    rows: int
    dtype: torch.dtype

    def forward(self) -> list[Callable[[], object]]:
        """A call for each layer."""
        inputs = [self._like(channels, side) for channels, _, _, _, side in SHAPES]
        layers = [self._layer(shape) for shape in SHAPES]
        calls: list[Callable[[], object]] = [
            lambda x=x, layer=layer: conv2d(x, layer.weight, layer.bias, layer.stride)
            for x, layer in zip(inputs, layers, strict=True)
        ]
        x, last = torch.randn(self.rows, 3136).to(self.dtype), nn.Linear(3136, 512).to(self.dtype)
        return [*calls, lambda: linear(x, last.weight, last.bias)]

    def backward(self) -> list[Callable[[], object]]:
        """A call for each layer; the first one's input needs no gradient."""
        calls: list[Callable[[], object]] = [self._backward(shape) for shape in SHAPES]
        x, gradient = torch.randn(self.rows, 3136).to(self.dtype), torch.randn(self.rows, 512).to(self.dtype)
        weight = torch.randn(512, 3136).to(self.dtype)
        return [*calls, lambda: (gradient @ weight, gradient.T @ x)]

    def _backward(self, shape: tuple[int, int, int, int, int]) -> Callable[[], object]:
        channels, out, kernel, stride, side = shape
        x, layer = self._like(channels, side), self._layer(shape)
        gradient, wanted = self._like(out, (side - kernel) // stride + 1), [shape != SHAPES[0], True, True]
        fixed = ([out], [stride, stride], [0, 0], [1, 1], False, [0, 0], 1, wanted)
        return lambda: torch.ops.aten.convolution_backward(gradient, x, layer.weight, *fixed)

    def _like(self, channels: int, side: int) -> Tensor:
        return torch.randn(self.rows, channels, side, side).to(self.dtype, memory_format=torch.channels_last)

    def _layer(self, shape: tuple[int, int, int, int, int]) -> nn.Conv2d:
        return nn.Conv2d(*shape[:4]).to(self.dtype, memory_format=torch.channels_last)


def least(call: Callable[[], object], times: int, clock: Callable[[], float] = time.thread_time) -> float:
    """Milliseconds of the fastest of many calls."""
    taken = []
    for _ in range(times + 2):
        started = clock()
        call()
        taken.append(1000 * (clock() - started))
    return min(taken[2:])


def learning(precision: Literal["fp32", "bf16"], rows: int, times: int) -> Milliseconds:
    """A minibatch of so many rows by ours, its optimiser's part, and the large kernels of the same."""
    case, dtype = CASES[f"nature {precision}"], torch.bfloat16 if precision == "bf16" else torch.float32
    update, objective = gradient_of(case)
    model = model_of(case, objective)
    engine = update.start(model, Group())
    batch = batch_of(case, model)
    engine.step({"fresh": batch}, progress=0.0)
    flat = engine.pieces(batch | objective.prepare(model, batch, Group()))
    slices = {"fresh": next(flat.shuffled(batch["mask"].numel() // rows))}
    kernels = Kernels(rows, dtype)
    with torch.no_grad():
        found = {
            "kernels, forward": sum(least(call, times) for call in kernels.forward()),
            "kernels, backward": sum(least(call, times) for call in kernels.backward()),
        }
    found["optimiser"] = least(lambda: engine.optimiser.step(over=1.0), times)
    return found | {"minibatch": least(lambda: engine._minibatch(slices), times)}


def acting(precision: Literal["fp32", "bf16"], envs: int, times: int) -> Milliseconds:
    """A vector step of so many environments, the policy's part of it, and the large kernels of that."""
    case, dtype = CASES[f"nature {precision}"], torch.bfloat16 if precision == "bf16" else torch.float32
    policy = ModelPolicy(model_of(case, gradient_of(case)[1]))
    environments, rng = Environment("ALE/Breakout-v5").make(envs), np.random.default_rng(1)
    seen, state, first = environments.reset(list(range(envs))), policy.initial_state(envs), np.zeros(envs, np.bool_)
    with torch.no_grad():
        kernels = sum(least(call, 10 * times) for call in Kernels(envs, dtype).forward())
    found = {
        # The emulator has a thread of its own.
        "emulator": least(lambda: environments.step(rng.integers(0, 4, envs)), 10 * times, time.process_time),
        "kernels, forward": kernels,
        "policy": least(lambda: policy.act(seen, state, first, rng), 10 * times),
    }
    environments.close()
    return found


def speeds(learner: Mapping[str, float], actor: Mapping[str, float], envs: int, rows: int) -> dict[str, float]:
    """Steps a second at best, and with our minibatches and policy if nobody ever waited."""
    kernels = learner["kernels, forward"] + learner["kernels, backward"] + learner["optimiser"]
    best = MINIBATCHES * kernels + rows * (actor["emulator"] + actor["kernels, forward"])
    ours = MINIBATCHES * learner["minibatch"] + rows * (actor["emulator"] + actor["policy"])
    return {"ceiling": round(1000 * envs * rows / best), "pieces of ours": round(1000 * envs * rows / ours)}


def main(*, envs: int = 8, rows: int = 128, times: int = 15) -> None:
    """Print the pieces in milliseconds and the steps a second that follow, as JSON.

    Args:
        envs: environments of both actors together.
        rows: of each between two learner steps.
        times: calls of a large piece; of a small one ten times as many.
    """
    torch.set_num_threads(1)
    for precision in ("fp32", "bf16"):
        learner = learning(precision, envs * rows // HALVES // 4, times)
        actor = acting(precision, envs // HALVES, times)
        pieces = {"minibatch": learner, "vector step": actor}
        rounded = {who: {name: round(ms, 2) for name, ms in of.items()} for who, of in pieces.items()}
        told = {"benchmark": f"pieces {precision}", "ms": rounded, "steps/s": speeds(learner, actor, envs, rows)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
