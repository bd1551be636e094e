"""CartPole at a pace of its own, which raises when somebody sets its trap."""

import time
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

ID = "benchmarks.chaos.environment:TrappedCartPole-v0"


class TrappedCartPole(CartPoleEnv):
    """The episodes of CartPole.

    Args:
        pace: seconds that a step sleeps: so the run's rate is known, and hardly the machine's.
        trap: a file; the first environment that finds it removes it and raises. Empty: there is none.
    """

    def __init__(self, pace: float = 0.0, trap: str = "") -> None:
        super().__init__()
        self._pace, self._trap = pace, Path(trap) if trap else None

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As CartPole's."""
        if self._pace:
            time.sleep(self._pace)
        if self._trap is not None and _removed(self._trap):
            raise OSError("the cart left the track")
        return super().step(action)


def _removed(file: Path) -> bool:
    """Whether this call removed the file: of all processes, one does."""
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


gymnasium.register("TrappedCartPole-v0", entry_point=TrappedCartPole, max_episode_steps=500)
