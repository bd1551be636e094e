"""Parts of a run that are slow for as long as somebody says so: a file of the fault's name in a folder."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

from cluster.weights import RayWeights
from learners.objectives.ppo import PPO

STEP, PART = 0.04, 0.4
"""Seconds that a slow step takes, of which a block has many, and a slow part of a learner step."""


@contextmanager
def slow(folder: Path, fault: str) -> Iterator[None]:
    """Whoever looks for the fault is slow meanwhile."""
    file = folder / fault
    file.touch()
    try:
        yield
    finally:
        file.unlink()


@contextmanager
def starved(pid: int) -> Iterator[None]:
    """A process gets to run for a tenth of the time only."""
    over = Event()

    def stop_and_go() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.27)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.03)

    thread = Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class SlowCartPole(CartPoleEnv):
    """Sleeps in every step."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._file = Path(folder, "environment")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._file.exists():
            time.sleep(STEP)
        return super().step(action)


gymnasium.register("SlowCartPole-v0", entry_point=SlowCartPole, max_episode_steps=500)


@dataclass(frozen=True)
class SlowPPO(PPO):
    """Sleeps before every learner step's updates.

    Attributes:
        folder: where it looks.
    """

    folder: str = ""

    def prepare(self, model, batch, group):
        if Path(self.folder, "learner").exists():
            time.sleep(PART)
        return super().prepare(model, batch, group)


class SlowWeights(RayWeights):
    """Weights that are under way for long."""

    folder: Path

    def read(self, *, have: int, at_least: int):
        found = super().read(have=have, at_least=at_least)
        if (self.folder / "weights").exists():
            time.sleep(PART)
        return found
