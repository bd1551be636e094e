"""StaticRecall: what its frames show, when it pays, and what remembering is worth."""

from itertools import pairwise

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv

from actors.environments import Environment, Environments
from actors.envs.hidden_class import BARS
from actors.envs.static_recall import StaticRecallVector, textures
from actors.evaluator import evaluate
from actors.policy import RandomPolicy
from replay.schema import Column

ID = "actors.envs:StaticRecall-v0"
ACTIONS, CONTRAST, STATIC = 8, 40, 160
EPISODE = 13  # observations: twelve frames and the final one


def whole_episodes(env: VectorEnv, seed: int, rounds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of whole episodes (m, 13, 32, 32), and rewards and ends of each frame's step, always action 5."""
    seen = [env.reset(seed=seed)[0]]
    rewards, ends = [], []
    for _ in range(rounds * EPISODE):
        observation, reward, terminated, truncated, _ = env.step(np.full(env.num_envs, 5))
        seen.append(observation)
        rewards.append(reward)
        ends.append(terminated)
        assert not truncated.any()

    def by_episode(column: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.stack(column[i * EPISODE : (i + 1) * EPISODE], 1) for i in range(rounds)])

    return by_episode(seen), by_episode(rewards), by_episode(ends)


@pytest.fixture(scope="module")
def episodes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return whole_episodes(StaticRecallVector(32), seed=0, rounds=10)


def likeness(frames: np.ndarray) -> np.ndarray:
    """How well each class's texture explains frames (..., 32, 32), against static alone: (..., ACTIONS)."""
    pattern = textures().astype(np.float64)
    energy = 0.5 * (pattern**2).sum(axis=(1, 2))
    return np.einsum("...ij,cij->...c", frames - STATIC / 2, pattern) - energy


class Remembering:
    """Sums the evidence of an episode's frames so far and answers with the likeliest class."""

    def __init__(self) -> None:
        self.extras: dict[str, Column] = {}

    def initial_state(self, n: int) -> np.ndarray:
        return np.zeros((n, ACTIONS))

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: np.ndarray,
        first: np.ndarray,
        rng: np.random.Generator,
        *,
        greedy: bool = False,
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        frames = observation["observation"]
        # Static alone is likelier than any texture where the best evidence is negative.
        evidence = likeness(frames)
        asked = (frames[:, BARS] == 255).all(axis=(1, 2))
        heard = ~asked & (evidence.max(axis=1) > 0)
        state = np.where(first[:, None], 0, state) + evidence * heard[:, None]
        return {"action": state.argmax(axis=1), "log_prob": np.zeros(len(first), np.float32)}, state

    def load(self, version: int, weights: dict[str, np.ndarray]) -> None: ...


def played(policy, *, episodes: int, seed: int = 3) -> np.ndarray:
    result = evaluate(policy, Environment(ID), episodes=episodes, seed=seed, count=100, max_steps=100)
    assert all(episode.finished for episode in result)
    return np.array([episode.total for episode in result])


def test_the_static_is_uniform_and_fresh(episodes):
    frames = episodes[0][:, [3, 4, 5, 6, 7, 12]].astype(np.int64)
    counts = np.bincount(frames.ravel(), minlength=256)
    assert counts[STATIC + 1 :].sum() == 0
    assert counts[: STATIC + 1].min() / counts[: STATIC + 1].mean() > 0.9
    neighbours = np.corrcoef(frames[:, 0].ravel(), frames[:, 1].ravel())[0, 1]
    assert abs(neighbours) < 0.02


def test_the_texture_of_one_class_lies_over_the_static_at_the_beginning_and_after_the_query(episodes):
    frames = episodes[0].astype(np.int64)
    classes = likeness(frames[:, [0, 1, 2, 9, 10, 11]]).sum(axis=1).argmax(axis=1)
    assert set(classes) == set(range(ACTIONS))
    for frame in [0, 1, 2, 9, 10, 11]:
        static = frames[:, frame] - textures()[classes]
        assert static.min() == 0
        assert static.max() == STATIC
    assert {0, CONTRAST} == set(np.unique(textures()))


def test_only_the_query_has_bars(episodes):
    barred = (episodes[0][:, :, BARS] == 255).all(axis=(2, 3))
    np.testing.assert_array_equal(barred, np.tile(np.arange(EPISODE) == 8, (len(barred), 1)))
    inside = episodes[0][:, 8, 2:30]
    assert inside.max() == STATIC


def test_only_the_right_answer_to_the_query_pays(episodes):
    frames, rewards, _ = episodes
    classes = likeness(frames[:, [0, 1, 2, 9, 10, 11]]).sum(axis=1).argmax(axis=1)
    np.testing.assert_array_equal(rewards[:, 8], classes == 5)
    assert 0 < rewards[:, 8].mean() < 1
    assert not np.delete(rewards, 8, axis=1).any()


def test_an_episode_ends_after_its_twelfth_action(episodes):
    np.testing.assert_array_equal(episodes[2], np.tile(np.arange(EPISODE) == 11, (len(episodes[2]), 1)))


def test_remembering_earns_one_in_every_episode():
    assert played(Remembering(), episodes=300).tolist() == [1.0] * 300


def test_guessing_earns_an_eighth():
    policy = RandomPolicy(gymnasium.spaces.Discrete(ACTIONS))
    assert played(policy, episodes=2000).mean() == pytest.approx(1 / ACTIONS, abs=0.025)


def stream(seed: int, *, count: int = 3, steps: int = 30) -> np.ndarray:
    """What `count` environments show through the layer that actors use, (steps, count, 32, 32)."""
    environments: Environments = Environment(ID).make(count)
    seen = [environments.reset([seed] * count)["observation"]]
    seen += [environments.step(np.zeros(count, np.int64)).observation["observation"] for _ in range(steps)]
    environments.close()
    return np.stack(seen)


def test_a_seed_repeats_everything_and_another_nothing():
    np.testing.assert_array_equal(stream(7), stream(7))
    assert (stream(7) != stream(8)).mean() > 0.9


def test_environments_differ_and_do_not_depend_on_how_many_there_are():
    seen = stream(7, count=4)
    for slot in range(1, 4):
        assert (seen[:, 0] != seen[:, slot]).mean() > 0.9
    np.testing.assert_array_equal(seen[:, :2], stream(7, count=2))


def test_seeds_can_be_given_one_by_one():
    together, alone = StaticRecallVector(2), StaticRecallVector(1)
    np.testing.assert_array_equal(together.reset(seed=[5, 9])[0][1], alone.reset(seed=[9])[0][0])
    with pytest.raises(ValueError, match="got 3 seeds for 2 environments"):
        together.reset(seed=[1, 2, 3])


def test_a_reset_without_a_seed_begins_other_episodes():
    env = StaticRecallVector(64)
    before, _ = env.reset(seed=1)
    env.step(np.zeros(64, np.int64))
    after, _ = env.reset()
    assert (before != after).mean() > 0.9
    ends = [env.step(np.zeros(64, np.int64))[2].all() for _ in range(EPISODE)]
    assert ends.index(True) == 11


def test_the_environments_layer_ignores_the_action_after_an_end():
    environments = Environment(ID).make(8)
    environments.reset(list(range(8)))
    steps = [environments.step(np.zeros(8, np.int64)) for _ in range(60)]
    assert environments.observation_space.shape == (32, 32)
    assert StaticRecallVector.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    for before, after in pairwise(steps):
        np.testing.assert_array_equal(after.decided, ~before.terminated)
        assert not after.reward[~after.decided].any()
    environments.close()


def test_a_single_environment_is_the_first_of_a_vector():
    single, vector = gymnasium.make(ID), StaticRecallVector(1)
    observation, _ = single.reset(seed=4)
    observations, _ = vector.reset(seed=4)
    terminated, length = False, 0
    while not terminated:
        np.testing.assert_array_equal(observation, observations[0])
        observation, reward, terminated, _, _ = single.step(2)
        observations, rewards, _, _, _ = vector.step(np.array([2]))
        assert reward == rewards[0]
        length += 1
    assert length == 12
    single.close()


def test_gymnasium_finds_nothing_wrong_with_a_single_environment():
    check_env(gymnasium.make(ID).unwrapped)
