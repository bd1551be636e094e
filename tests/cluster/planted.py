"""Parts of a run that are slow while somebody says so: a file of the fault's name in a folder, which holds seconds."""

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

STEPS = 20
"""Of single environments, in a block of one actor."""


@contextmanager
def slow(folder: Path, fault: str, seconds: float) -> Iterator[None]:
    """Whoever looks for the fault takes so much longer for a block or a learner step meanwhile."""
    file = folder / fault
    (folder / "new").write_text(str(seconds))
    (folder / "new").rename(file)
    try:
        yield
    finally:
        file.unlink()


def nap(file: Path, share: float = 1.0) -> None:
    """Sleep where a fault is planted."""
    try:
        seconds = float(file.read_text())
    except FileNotFoundError:
        return
    time.sleep(share * seconds)


@contextmanager
def starved(pid: int, seconds: float) -> Iterator[None]:
    """A process is stopped for so long again and again, and hardly gets to run in between."""
    over = Event()

    def stop_and_go() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)  # too short for a learner step

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
        nap(self._file, 1 / STEPS)
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
        nap(Path(self.folder, "learner"))
        return super().prepare(model, batch, group)


class SlowWeights(RayWeights):
    """Weights that are under way for long."""

    folder: Path

    def read(self, *, have: int, at_least: int):
        found = super().read(have=have, at_least=at_least)
        nap(self.folder / "weights")
        return found
