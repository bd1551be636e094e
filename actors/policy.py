"""What an actor needs of a policy, and the simplest one that there is."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from actors.spaces import SpaceError, columns_of
from replay.schema import Column


@runtime_checkable
class Policy(Protocol):
    """Chooses actions for n streams at once, and says what else to record.

    Attributes:
        extras: columns that `act` returns beside `action` and `log_prob`; they become columns of the row.
    """

    extras: dict[str, Column]

    def initial_state(self, n: int) -> Any:
        """What the policy carries from step to step for n streams that have seen nothing; None if nothing."""
        ...

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        first: np.ndarray,
        rng: np.random.Generator,
        *,
        greedy: bool = False,
    ) -> tuple[dict[str, np.ndarray], Any]:
        """The columns to record for these observations, and the state after them.

        Args:
            observation: its columns, (n, ...) each, single frames.
            state: as returned by the previous call.
            first: (n,) bool, the observation is the first of an episode: forget what came before.
            rng: the only source of randomness.
            greedy: take the most likely action.

        Returns:
            `action` (n, ...), `log_prob` (n,) float32 of that action, and the extras; all with the columns' dtypes.
        """
        ...

    def load(self, version: int, weights: dict[str, np.ndarray]) -> None:
        """Acts with these weights from now on. They are copied: the arrays may be read-only or reused."""
        ...


class RandomPolicy:
    """Uniform over the action space; normal where a Box has no bounds."""

    def __init__(self, action_space: spaces.Space):
        self.extras: dict[str, Column] = {}
        (self._column,) = columns_of(action_space, "action").values()
        self._space = action_space

    def initial_state(self, n: int) -> None:
        """Nothing is carried."""

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: None,
        first: np.ndarray,
        rng: np.random.Generator,
        *,
        greedy: bool = False,
    ) -> tuple[dict[str, np.ndarray], None]:
        """A fresh random action per stream; greedy makes no difference."""
        action, log_prob = _sample(self._space, len(first), rng)
        log_probs = np.broadcast_to(log_prob, len(first)) if np.ndim(log_prob) == 0 else log_prob
        return {"action": action.astype(self._column.dtype), "log_prob": log_probs.astype(np.float32)}, state

    def load(self, version: int, weights: dict[str, np.ndarray]) -> None:
        """There are no weights."""


def _sample(space: spaces.Space, n: int, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """Random actions (n, ...) and their log-probabilities, (n,) or one number for all."""
    if isinstance(space, spaces.Discrete):
        return space.start + rng.integers(space.n, size=n), -np.log(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start + rng.integers(space.nvec, size=(n, *space.shape)), -np.log(space.nvec).sum()
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(2, size=(n, *space.shape)), -np.log(2) * int(np.prod(space.shape))
    if isinstance(space, spaces.Box):
        return _sample_box(space, n, rng)
    raise SpaceError(f"RandomPolicy cannot sample the action space {space}")


def _sample_box(space: spaces.Box, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    bounded = space.bounded_below & space.bounded_above
    low, width = np.where(bounded, space.low, 0.0), np.where(bounded, space.high.astype(float) - space.low, 1.0)
    normal = rng.standard_normal((n, *space.shape))
    action = np.where(bounded, low + width * rng.random((n, *space.shape)), normal)
    log_density = np.where(bounded, -np.log(width), -0.5 * (normal**2 + np.log(2 * np.pi)))
    return action, log_density.reshape(n, -1).sum(axis=1)
