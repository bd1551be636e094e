"""The process of a distributed run that plays greedy episodes while others train."""

import os
import time
from pathlib import Path

import numpy as np
import torch

from actors.episodes import Episode
from cluster.evaluation import episodes_of
from cluster.experiment import Experiment
from cluster.processes import log_here
from cluster.vitals import Vitals, of_this_process


class EvaluatorProcess:
    """Greedy episodes in a process of their own, with one thread.

    Args:
        experiment: checked.
        log: where what it prints goes.
        home: the driver's node.
    """

    def __init__(self, experiment: Experiment, *, log: Path, home: str) -> None:
        self._log = log_here(log, home)
        torch.set_num_threads(1)
        self._experiment = experiment
        self._rate: float | None = None

    def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    def vitals(self) -> Vitals:
        """How the process is; its rate is that of its last evaluation."""
        return of_this_process(rate=self._rate, unit="env steps/s", printed=self._log.news())

    def play(self, version: int, weights: dict[str, np.ndarray]) -> list[Episode]:
        """All episodes of an evaluation; see `episodes_of`."""
        began = time.monotonic()
        played = episodes_of(self._experiment, version, weights)
        self._rate = sum(episode.length for episode in played) / (time.monotonic() - began)
        return played
