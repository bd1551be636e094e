"""Learners of every kind that keep their last versions; run as a program, they are killed and go on."""

import functools
import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learners.advantages import Advantages
from learners.augment import Chain, GaussianNoise, RandomCrop, RandomShift
from learners.checkpoint import CheckpointError
from learners.gradient import Gradient
from learners.last_versions import LastVersions
from learners.learner import Learner
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp
from learners.objective import Sum
from learners.objectives.cpc import Cpc
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.objectives.trpo import Critic, Surrogate
from learners.trust_region import TrustRegion
from learners.update import Average, Normalise
from tests.learners.reading import TABLE, RandomRows, learner_of, model_of

Keep = LastVersions | None
LOGITS = {"policy_logits": np.zeros((TABLE.batch, TABLE.lead + TABLE.window, 3), np.float32)}


def ppo(keep: Keep) -> Learner:
    """With a KL penalty, everything normalised."""
    objective = PPO(Advantages(scale_reward=True), kl_target=0.01)
    model = model_of(objective, images=False, normalise=True, record_distribution=True)
    updates = Gradient({"fresh": objective}, lr=0.01, epochs=2, minibatches=2), Normalise("fresh")
    return learner_of(model, *updates, rows=RandomRows(images=False, changes=LOGITS), keep=keep)


def trpo(keep: Keep) -> Learner:
    """With an encoder that an auxiliary update moves first, and a critic of its own."""
    model = model_of(images=False, normalise=True, record_distribution=True, value_encoder=Mlp((8,)))
    critic = Gradient({"fresh": Critic()}, lr=0.01, epochs=2, minibatches=2)
    updates = TrustRegion({"fresh": Surrogate()}), critic, Normalise("fresh")
    return learner_of(model, *updates, rows=RandomRows(images=False, changes=LOGITS), keep=keep)


def curl(keep: Keep) -> Learner:
    """On frames that are cut and changed at random, slow copies, minibatches in parts."""
    objective = Sum({"ppo": (1.0, PPO()), "curl": (0.5, Curl(augment=RandomShift(2)))})
    model = model_of(objective, images=True, crop=22)
    gradient = Gradient(
        {"fresh": objective},
        lr=0.01,
        epochs=2,
        minibatches=2,
        accumulate=2,
        augment=Chain((RandomCrop(22), GaussianNoise(0.01))),
        then=(Average("encoder"), Average("curl.projection")),
    )
    return learner_of(model, gradient, rows=RandomRows(images=True), keep=keep)


def cpc(keep: Keep) -> Learner:
    """With a memory, and another row's future for each."""
    objective = Sum({"ppo": (1.0, PPO()), "cpc": (0.5, Cpc(momentum=True, shuffled=True))})
    model = model_of(objective, images=False, core=Gru(8))
    state = np.zeros((TABLE.batch, TABLE.lead + TABLE.window, 8), np.float32)
    then = tuple(Average(part) for part in objective.slow)
    gradient = Gradient({"fresh": objective}, lr=0.01, epochs=2, minibatches=2, then=then)
    return learner_of(model, gradient, rows=RandomRows(images=False, changes={"core_state": state}), keep=keep)


KINDS: dict[str, Callable[[Keep], Learner]] = {"ppo": ppo, "trpo": trpo, "curl": curl, "cpc": cpc}


def begun(kind: str, keep: Keep) -> Learner:
    """One that has announced its first version."""
    torch.manual_seed(7)
    learner = KINDS[kind](keep)
    torch.manual_seed(8)
    learner.announce()
    return learner


def taken_up(kind: str, keep: LastVersions, version: int) -> Learner:
    """One that goes on where another stopped."""
    torch.manual_seed(9)
    learner = KINDS[kind](keep)
    learner.restore(*keep.take_up(version))
    learner.announce()
    return learner


def bare(folder: Path) -> None:
    """Write as fast as can be, every number of a version being that version; now and then in another layout."""
    keep = LastVersions(folder, rank=0)
    there = keep.versions()
    if there:
        keep.take_up(there[-1])
    for version in range(there[-1] + 1 if there else 0, 1_000_000):
        width = 1_000_000 + 1000 * (version // 10 % 2)
        keep.write({name: torch.full((width,), version) for name in ("a", "b")}, {"version": version, "steps": 0})


def learn(kind: str, folder: Path) -> None:
    """Go on from the newest version that is there, if there is one."""
    keep = LastVersions(folder, rank=0)
    there = keep.versions()
    learner = taken_up(kind, keep, there[-1]) if there else begun(kind, keep)
    while True:
        learner.step()


def digest(tensors: Mapping[str, Tensor]) -> int:
    """A number for a whole state."""
    parts = (tensors[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy() for name in sorted(tensors))
    return functools.reduce(lambda total, part: zlib.crc32(part, total), parts, 0)


def newest(folder: Path) -> int:
    try:
        return max(LastVersions(folder, rank=0).versions(), default=-1)
    except CheckpointError:  # it is looked at while it is written, as nobody does but this program
        return -1


def main(kind: str, folder: Path, deaths: int) -> None:
    """Start a process, kill it, again and again; print what each left, {version: digest}, as one JSON line."""
    folder.mkdir()
    live, rng = partial(bare, folder) if kind == "bare" else partial(learn, kind, folder), np.random.default_rng(5)
    for _ in range(deaths):
        before = newest(folder)
        if (child := os.fork()) == 0:
            live()
        try:
            while newest(folder) < before + 2:  # on a busy machine a learner takes its time
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.02))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        left = LastVersions(folder, rank=0)
        print(json.dumps([kind, {version: digest(left.read(version)[0]) for version in left.versions()}]), flush=True)


if __name__ == "__main__":
    for each in sys.argv[2:]:
        main(each, Path(sys.argv[1]) / each, deaths=10)
