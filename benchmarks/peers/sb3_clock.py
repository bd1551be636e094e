"""The clock of a run of Stable-Baselines3's. Imports none of ours."""

import time

from stable_baselines3.common.callbacks import BaseCallback


class RolloutClock(BaseCallback):
    """When each collection of rows began: the time between two is one whole iteration, acting and learning."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[tuple[float, float]] = []

    def note(self) -> None:
        """Now, by the clock and by the processor."""
        self.starts.append((time.perf_counter(), time.process_time()))

    def _on_rollout_start(self) -> None:
        self.note()

    def _on_step(self) -> bool:
        return True
