"""Environments that go wrong, each in its own way: in environment 0 of an actor, at its 40th step."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle

AT = 40


class Faulty(gymnasium.Env):
    """Shows three zeros and pays 1; episodes last 10 steps."""

    made: ClassVar[int] = 0

    def __init__(self, fault: str = "", observation: spaces.Space | None = None, action: spaces.Space | None = None):
        self.observation_space = observation or spaces.Box(-1, 1, (3,), np.float32)
        self.action_space = action or spaces.Discrete(3)
        self._fault, self._steps = fault, 0
        Faulty.made += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self._fault == "Reset":
            raise OSError("the simulator is not there")
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        observation, reward, fault = np.zeros(3, np.float32), 1.0, self._fault if self._steps == AT else ""
        if fault == "Raise":
            raise ValueError("the cart fell off")
        if fault == "Nan":
            observation[1] = np.nan
        if fault == "Shape":
            observation = observation[:2]
        if fault == "Reward":
            reward = float("inf")
        return observation, reward, self._steps % 10 == 0, False, {}


for name in ("", "Reset", "Raise", "Nan", "Shape", "Reward"):
    gymnasium.register(f"Faulty{name}-v0", entry_point=lambda name=name: Faulty(name))
pair = (spaces.Discrete(2), spaces.Discrete(3))
gymnasium.register("TupleObservation-v0", entry_point=lambda: Faulty(observation=spaces.Tuple(pair)))
gymnasium.register("DictAction-v0", entry_point=lambda: Faulty(action=spaces.Dict({"move": pair[0], "turn": pair[1]})))
gymnasium.register("TextObservation-v0", entry_point=lambda: Faulty(observation=spaces.Text(4)))
small_image = spaces.Box(0, 255, (1, 30, 30), np.uint8)
gymnasium.register("SmallImage-v0", entry_point=lambda: Faulty(observation=small_image))


class Endless(gymnasium.Env):
    """An episode without end."""

    steps: ClassVar[int] = 0

    def __init__(self, width: int = 3, actions: int = 3):
        self.observation_space = spaces.Box(-1, 1, (width,), np.float32)
        self.action_space = spaces.Discrete(actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Endless.steps += 1
        return np.zeros(self.observation_space.shape, np.float32), 1.0, False, False, {}


gymnasium.register("Endless-v0", entry_point=Endless)
gymnasium.register("EndlessCartPole-v0", entry_point=lambda: Endless(4, 2))


class Rebuilt(Endless, EzPickle):
    """Pickled as MuJoCo's and Box2D's are: by what it was made with."""

    def __init__(self) -> None:
        Endless.__init__(self)
        EzPickle.__init__(self)


gymnasium.register("Rebuilt-v0", entry_point=Rebuilt)
