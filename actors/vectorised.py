"""Vector environments as actors see them: the same whatever their autoreset mode, failing by name."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from actors.side_by_side import SideBySide
from actors.spaces import columns_of, split
from actors.watched import EnvironmentFailed


@dataclass(frozen=True)
class Step:
    """What came of one action per environment.

    Attributes:
        observation: columns, (n, ...) each: what to act on next. After an end it is the final one where the
            environment resets on the next step, and the next episode's first one where it has been reset already.
        reward: (n,) float32, as the environment gives it; 0 where nothing was decided.
        terminated: (n,) bool.
        truncated: (n,) bool.
        decided: (n,) bool; False where the action was ignored because the observation before it was final.
        first: (n,) bool; `observation` is the first of an episode.
        final: slots (m,) and columns (m, ...) of the true final observations of environments that have been reset
            already; None where there are none.
    """

    observation: dict[str, np.ndarray]
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    decided: np.ndarray
    first: np.ndarray
    final: tuple[np.ndarray, dict[str, np.ndarray]] | None = None


class Environments:
    """n environments stepped together, with one behaviour for Gymnasium's three autoreset modes.

    Args:
        vector_env: any Gymnasium vector environment. It must return fresh arrays from every step.
        count: n, its number of environments.
        single_frame: drop the leading axis of its observations, a stack of one frame.

    Attributes:
        observation_space: of one environment, as recorded.
        action_space: of one environment.
        count: n.

    Raises:
        SpaceError: a space has no column.
    """

    def __init__(self, vector_env: VectorEnv, *, count: int, single_frame: bool = False):
        if vector_env.num_envs != count:
            raise ValueError(f"{vector_env} has {vector_env.num_envs} environments, wanted {count}")
        space = vector_env.single_observation_space
        self._vector_env, self._single_frame, self.count = vector_env, single_frame, count
        self.observation_space = _without_stack(space) if single_frame else space
        self.action_space = vector_env.single_action_space
        self._columns = columns_of(self.observation_space, "observation")
        self._to_environment = _action_caster(self.action_space)
        # Read now: Atari keeps it in a dict that all instances share and the next one may change.
        self._mode = AutoresetMode(vector_env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._ended = np.zeros(count, dtype=np.bool_)
        self._steps = 0
        self._last: dict[str, np.ndarray] = {}
        self._info: dict[str, Any] = {}

    @property
    def info(self) -> dict[str, Any]:
        """What they said beside the newest observation, as Gymnasium's vector environments say it."""
        if not self._info and isinstance(self._vector_env, SideBySide):
            return self._vector_env.info()
        return self._info

    @property
    def metadata(self) -> dict[str, Any]:
        """The environment's: `render_modes`, `render_fps` and so on."""
        return self._vector_env.metadata

    def render(self) -> list[np.ndarray]:
        """What each environment shows now, (H, W, 3) uint8, where they were made with render_mode="rgb_array"."""
        return list(self._guarded(self._vector_env.render))

    @property
    def in_step(self) -> bool:
        """Whether all streams grow by one row a step; false where an end brings two rows, its final one among them."""
        return self._mode is AutoresetMode.NEXT_STEP

    def reset(self, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """The first observations' columns; every environment starts anew.

        Args:
            seeds: one per environment. A vector environment with a single generator of its own, such as CartPole's,
                is seeded by the first.
        """
        self._ended = np.zeros(self.count, dtype=np.bool_)
        observation, self._info = self._guarded(self._vector_env.reset, seed=_seed_argument(self._vector_env, seeds))
        return self._taken(observation)

    def step(self, action: np.ndarray) -> Step:
        """Takes one action in each environment.

        Args:
            action: (n, ...). Continuous ones are clipped to the space's bounds on the way in; the caller's array
                keeps what was chosen.

        Raises:
            EnvironmentFailed: an environment raised, or returned NaN, infinity or a wrong shape; says which one.
        """
        self._steps += 1
        value, reward, terminated, truncated, info = self._guarded(
            self._vector_env.step, self._to_environment(action), action=action
        )
        self._info = info
        reward = np.asarray(reward).astype(np.float32, copy=False)
        self._check_finite("reward", reward, action)
        terminated, truncated = np.asarray(terminated, dtype=np.bool_), np.asarray(truncated, dtype=np.bool_)
        ended = terminated | truncated
        if self._mode is AutoresetMode.NEXT_STEP:
            decided, self._ended = ~self._ended, ended
            return Step(self._taken(value, action), reward * decided, terminated, truncated, decided, ~decided)
        final = None
        if ended.any():
            final, value = self._already_reset(value, info, ended, action)
        decided = np.ones(self.count, dtype=np.bool_)
        return Step(self._taken(value, action), reward, terminated, truncated, decided, ended, final)

    def state(self) -> tuple[Any, ...]:
        """All that decides what they do next, the environments themselves among it."""
        return self._vector_env, self._ended, self._steps, self._last, self._info

    def take_up(self, state: tuple[Any, ...]) -> None:
        """Goes on from a state of the same environments; those that were there are closed."""
        former = self._vector_env
        self._vector_env, self._ended, self._steps, self._last, self._info = state
        with suppress(Exception):  # they were never reset, without which some cannot be closed
            former.close()

    def close(self) -> None:
        """Closes the environments."""
        try:
            self._vector_env.close()
        except Exception as error:
            who = f"one of environments 0..{self.count - 1}"
            raise EnvironmentFailed(f"{who} raised {type(error).__name__} as it was closed: {error}") from error

    def _already_reset(
        self, value: Any, info: dict[str, Any], ended: np.ndarray, action: np.ndarray
    ) -> tuple[tuple[np.ndarray, dict[str, np.ndarray]], Any]:
        """The final observations of those that ended, and what all of them show now that these are reset."""
        slots = np.flatnonzero(ended)
        if self._mode is AutoresetMode.SAME_STEP:
            final = _stacked(self._vector_env.single_observation_space, [info["final_obs"][slot] for slot in slots])
            return (slots, self._checked(final, action, slots)), value
        final = {name: column[slots] for name, column in self._checked(value, action).items()}
        value, _ = self._guarded(self._vector_env.reset, options={"reset_mask": ended})
        return (slots, final), value

    def _taken(self, value: Any, action: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Checked observation columns, which must not be the arrays handed out before: those await being recorded."""
        columns = self._checked(value, action)
        for name, column in columns.items():
            if name in self._last and np.may_share_memory(column, self._last[name]):
                raise EnvironmentFailed(f"{self._vector_env} returned the same {name} array twice; return a copy")
        self._last = columns
        return columns

    def _checked(self, value: Any, action: np.ndarray | None, slots: np.ndarray | None = None) -> dict[str, np.ndarray]:
        columns = split(self.observation_space, value[:, 0] if self._single_frame else value)
        for name, column in columns.items():
            wanted = (self.count if slots is None else len(slots), *self._columns[name].shape)
            if column.shape != wanted:
                raise EnvironmentFailed(f"{self._vector_env} returned {name} of shape {column.shape}, wanted {wanted}")
            if column.dtype.kind == "f":
                self._check_finite(name, column, action, slots)
        return columns

    def _check_finite(
        self, name: str, column: np.ndarray, action: np.ndarray | None, slots: np.ndarray | None = None
    ) -> None:
        finite = np.isfinite(column)
        if finite.all():
            return
        row = int(np.argmin(finite.reshape(len(column), -1).all(axis=1)))
        slot = row if slots is None else int(slots[row])
        last = "at reset" if action is None else f"at step {self._steps}; last action {action[slot]}"
        raise EnvironmentFailed(f"environment {slot} of {self.count} returned {name} {column[row]} {last}")

    def _guarded(
        self, call: Callable[..., Any], *arguments: Any, action: np.ndarray | None = None, **keywords: Any
    ) -> Any:
        """Calls the vector environment; whatever it raises comes out as EnvironmentFailed."""
        try:
            return call(*arguments, **keywords)
        except EnvironmentFailed:
            raise
        except Exception as error:
            last = "at reset" if action is None else f"at step {self._steps}; last actions {action.tolist()}"
            who = f"one of environments 0..{self.count - 1}"
            raise EnvironmentFailed(f"{who} raised {type(error).__name__}: {error} {last}") from error


def _seed_argument(vector_env: VectorEnv, seeds: Sequence[int]) -> Any:
    """The same seeds in the form that this vector environment takes."""
    if isinstance(vector_env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
        return [int(seed) for seed in seeds]
    if type(vector_env.unwrapped).__module__.startswith("ale_py."):
        return np.asarray(seeds, dtype=np.int64)
    return int(seeds[0])


def _without_stack(space: spaces.Space) -> spaces.Box:
    """The space of the one frame in a stack of one."""
    if not isinstance(space, spaces.Box) or space.shape[0] != 1:
        raise ValueError(f"wanted a stack of one frame, got {space}")
    return spaces.Box(space.low[0], space.high[0], dtype=space.dtype.type)


def _stacked(space: spaces.Space, values: Sequence[Any]) -> Any:
    """Values of a space as one batched value of it."""
    if isinstance(space, spaces.Dict):
        return {key: _stacked(inner, [value[key] for value in values]) for key, inner in space.items()}
    return np.stack(values)


def _action_caster(space: spaces.Space) -> Callable[[np.ndarray], np.ndarray]:
    """What turns recorded actions into the arrays that environments with this space take."""
    if isinstance(space, spaces.Box):
        return lambda action: np.clip(action, space.low, space.high).astype(space.dtype, copy=False)
    return lambda action: action.astype(space.dtype, copy=False)
