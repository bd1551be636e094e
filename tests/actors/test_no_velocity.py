"""CartPole without velocities is CartPole, but for what is seen."""

import gymnasium
import numpy as np

from actors.environments import Environment


def test_it_shows_cartpoles_positions_and_ends_when_it_does() -> None:
    whole, part = gymnasium.make("CartPole-v1"), gymnasium.make("actors.envs:CartPoleNoVelocity-v0")
    seen, hidden = whole.reset(seed=3)[0], part.reset(seed=3)[0]
    for action in np.random.default_rng(0).integers(0, 2, 500):
        assert np.array_equal(hidden, seen[[0, 2]])
        assert part.observation_space.contains(hidden)
        seen, *rest = whole.step(int(action))
        hidden, *others = part.step(int(action))
        assert rest[:3] == others[:3]
        if rest[1]:
            return
    raise AssertionError("a random policy never fell")


def test_an_actor_can_step_it() -> None:
    environments = Environment("actors.envs:CartPoleNoVelocity-v0").make(3)
    assert environments.reset([1, 2, 3])["observation"].shape == (3, 2)
    assert environments.step(np.zeros(3, np.int64)).observation["observation"].dtype == np.float32
    environments.close()
