"""The clock of a run of Stable-Baselines3's. Imports none of ours but that clock."""

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.peers.clock import Clock


class RolloutClock(BaseCallback):
    """An iteration ends where the next one begins to collect rows, or where training ends."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def _ended(self) -> None:
        self.clock.iteration(self.num_timesteps, [episode["r"] for episode in self.model.ep_info_buffer])

    def _on_rollout_start(self) -> None:
        if self.num_timesteps:
            self._ended()

    def _on_training_end(self) -> None:
        if not self.clock.done:
            self._ended()

    def _on_step(self) -> bool:
        return not self.clock.done
