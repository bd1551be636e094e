"""Whether CPC's context finds what no single observation shows: a moving dot's velocity.

A dot moves along a ring of pixels with a constant velocity that is never displayed; each frame shows its position
only, with noise. An encoder and a GRU learn by `Cpc` alone, then a linear regression reads the velocity from the
context. Two controls: the same regression from one raw frame (must fail) and from the context of an untrained model.

    python -m benchmarks.cpc_probe --seeds 0 1 2
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from learners.group import Group
from learners.model import ActorCritic, Model
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp
from learners.objective import Batch, reduce, tagged_terms
from learners.objectives.cpc import Cpc
from learners.probe import r_squared, ridge
from replay.schema import Column

PIXELS, ROWS, HIDDEN = 24, 16, 64
MAX_VELOCITY, DOT_WIDTH, NOISE = 1.5, 1.5, 0.1
BARS = {"context": 0.9, "frame": 0.1}


def moving_dots(rng: np.random.Generator, streams: int) -> tuple[Tensor, Tensor]:
    """Frames (streams, ROWS, PIXELS) of dots that move along a ring, and their velocities (streams,) in pixels."""
    velocity = rng.uniform(-MAX_VELOCITY, MAX_VELOCITY, streams)
    position = rng.uniform(0, PIXELS, (streams, 1)) + velocity[:, None] * np.arange(ROWS)
    distance = (np.arange(PIXELS) - position[..., None] + PIXELS / 2) % PIXELS - PIXELS / 2
    frames = np.exp(-0.5 * (distance / DOT_WIDTH) ** 2) + NOISE * rng.standard_normal(distance.shape)
    return torch.from_numpy(frames.astype(np.float32)), torch.from_numpy(velocity.astype(np.float32))


def as_batch(frames: Tensor) -> Batch:
    """The columns that a model and `Cpc` read: every stream is one episode."""
    shape = frames.shape[:2]
    return {
        "observation": frames,
        "mask": torch.ones(shape),
        "episode": torch.arange(shape[0]).unsqueeze(1).expand(shape),
        "step": torch.arange(shape[1]).expand(shape),
        "core_state": torch.zeros(*shape, HIDDEN),
    }


def train(model: Model, objective: Cpc, rng: np.random.Generator, *, updates: int, streams: int) -> dict[str, float]:
    """Adam on CPC alone, fresh dots in every update; the last update's metrics."""
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    means: dict[str, Tensor] = {}
    for _ in range(updates):
        batch = as_batch(moving_dots(rng, streams)[0])
        loss, means = reduce(tagged_terms(objective, model, model(batch), batch), Group())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: float(value) for name, value in means.items()}


def linear_probe(fitted: Sequence[Tensor], held_out: Sequence[Tensor]) -> float:
    """R^2, on held-out rows, of a linear regression from inputs (n, F) to targets (n,) fitted on other rows."""
    (inputs, targets), (new_inputs, new_targets) = fitted, held_out
    return r_squared(ridge(inputs, targets, new_inputs, penalty=1e-6), new_targets)


@torch.no_grad()
def last_context(model: Model, frames: Tensor) -> Tensor:
    """The context of each stream's last row, (streams, HIDDEN)."""
    return model(as_batch(frames)).context[:, -1]


def probe(seed: int, *, updates: int = 600, streams: int = 32) -> dict[str, float]:
    """One seed: R^2 of the velocity from `context`, one raw `frame`, and the `untrained` context; and metrics.

    Args:
        seed: of the dots and of the network.
        updates: optimiser steps.
        streams: dots per update.
    """
    begin = time.perf_counter()
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    objective = Cpc(steps=3, features=32)
    spec = ActorCritic(Mlp((64, 64), "relu"), core=Gru(HIDDEN))
    model = spec.build({"observation": Column("float32", (PIXELS,))}, gym.spaces.Discrete(2), [objective])
    samples = [moving_dots(rng, 2000), moving_dots(rng, 2000)]

    def score(represent: Callable[[Tensor], Tensor]) -> float:
        return linear_probe(*[(represent(frames), velocity) for frames, velocity in samples])

    result = {"frame": score(lambda frames: frames[:, -1]), "untrained": score(lambda f: last_context(model, f))}
    metrics = train(model, objective, rng, updates=updates, streams=streams)
    result["context"] = score(lambda frames: last_context(model, frames))
    return {"seed": seed} | result | metrics | {"seconds": time.perf_counter() - begin}


def table(results: Sequence[dict[str, float]]) -> str:
    """The results as markdown, with the bars."""
    columns = ["seed", "context", "frame", "untrained", "contrast/accuracy_1", "contrast/information_1", "seconds"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(f"{result[name]:.3g}" for name in columns) + " |" for result in results]
    return "\n".join([*lines, f"\nBars: context >= {BARS['context']}, frame <= {BARS['frame']}."])


def main() -> None:
    """Print one JSON line per seed and a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    torch.set_num_threads(1)
    results = []
    for seed in parser.parse_args().seeds:
        results.append(probe(seed))
        print(json.dumps(results[-1]), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
