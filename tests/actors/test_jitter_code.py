"""JitterCode and StaticLock: what their frames show, when they pay, and what recognising is worth."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.lib.stride_tricks import sliding_window_view

from actors.environments import Environment
from actors.envs.hidden_class import BARS, HiddenClassVector, squares
from actors.envs.jitter_code import OFFSETS, JitterCodeVector, textures
from actors.envs.static_lock import ROOMS, StaticLockVector, moves
from actors.evaluator import evaluate
from actors.policy import RandomPolicy
from replay.schema import Column

CODE, LOCK = "actors.envs:JitterCode-v0", "actors.envs:StaticLock-v0"


def likeliest(frames: np.ndarray, patterns: np.ndarray, static: int) -> np.ndarray:
    """The class (n,) whose texture, at its best place, explains frames (n, 32, 32) best, bars left out."""
    windows = sliding_window_view(patterns.astype(np.float32), (32, 32), axis=(1, 2))[:, :OFFSETS, :OFFSETS, 2:30]
    seen = frames[:, 2:30].astype(np.float32) - static / 2
    energy = 0.5 * np.square(windows).sum((-1, -2))
    evidence = np.einsum("nij,cyxij->ncyx", seen, windows, optimize=True) - energy
    return evidence.max((2, 3)).argmax(1)


class Recognising:
    """Names the likeliest texture, and does what `answers` has for it."""

    def __init__(self, patterns: np.ndarray, static: int, answers: np.ndarray) -> None:
        self.extras: dict[str, Column] = {}
        self.patterns, self.static, self.answers = patterns, static, answers

    def initial_state(self, n: int) -> None: ...

    def act(
        self, observation: dict[str, np.ndarray], state: None, first: np.ndarray, rng: np.random.Generator, **_: bool
    ) -> tuple[dict[str, np.ndarray], None]:
        found = likeliest(observation["observation"], self.patterns, self.static)
        return {"action": self.answers[found], "log_prob": np.zeros(len(first), np.float32)}, state

    def load(self, version: int, weights: dict[str, np.ndarray]) -> None: ...


def returns(policy: object, env: str, *, episodes: int, **kwargs: int) -> np.ndarray:
    played = evaluate(policy, Environment(env, kwargs), episodes=episodes, seed=3, count=20, max_steps=100)
    assert all(episode.finished for episode in played)
    return np.array([episode.total for episode in played])


def played(env: HiddenClassVector, action: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames (steps, n, 32, 32), what acting on them paid, and whether that ended the episode."""
    frames, rewards, ends = [env.reset(seed=0)[0]], [], []
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(np.full(env.num_envs, action))
        frames.append(observation)
        rewards.append(reward)
        ends.append(terminated | truncated)
    return np.stack(frames[:-1]), np.stack(rewards), np.stack(ends)


def test_the_textures_are_the_published_ones() -> None:
    expected = (np.random.default_rng(2026).random((16, 10, 10)) < 0.5) * 30
    assert textures().shape == (16, 40, 40)
    np.testing.assert_array_equal(textures()[:, ::4, ::4], expected)
    np.testing.assert_array_equal(textures(), squares(16, 10, 30))


def test_an_episode_shows_one_class_and_asks_on_its_last_frame() -> None:
    frames, rewards, ends = played(JitterCodeVector(16, static=0), 5, 45)
    barred = (frames[:, :, BARS] == 255).all(axis=(2, 3))
    np.testing.assert_array_equal(barred, ends, err_msg="bars exactly where the action counts")
    classes = np.stack([likeliest(each, textures(), 0) for each in frames])
    assert set(np.unique(frames[~barred])) == {0, 30}, "without static, the texture alone"
    np.testing.assert_array_equal(rewards, barred & (classes == 5))
    for slot in range(16):
        asked = np.flatnonzero(barred[:, slot])
        assert asked[0] == 7 - slot % 8, "start phases are staggered"
        assert set(np.diff(asked)) == {9}, "eight frames and a final one"
        for last in asked:
            assert len(set(classes[max(0, last - 7) : last + 1, slot])) == 1
    assert set(np.unique(classes)) == set(range(16))


def test_the_texture_jitters_and_the_static_is_fresh_and_uniform() -> None:
    env = JitterCodeVector(4, static=0)
    frames, _, _ = played(env, 0, 400)
    windows = sliding_window_view(textures(), (32, 32), axis=(1, 2))
    places = {
        (int(top), int(left))
        for frame in frames[:, 0]
        if not (frame == 255).any()
        for _, top, left in np.argwhere((windows == frame).all((-1, -2)))
    }
    assert places == {(top, left) for top in range(OFFSETS) for left in range(OFFSETS)}
    noisy, _, _ = played(JitterCodeVector(4), 0, 100)
    counts = np.bincount(noisy[noisy < 255].ravel(), minlength=256)
    assert counts[111:].sum() == 0, "80 of static and 30 of texture"
    assert counts[30:81].min() > 0.9 * counts[30:81].max()


def test_recognising_earns_one_and_guessing_a_sixteenth() -> None:
    knowing = Recognising(textures(), 80, np.arange(16))
    assert returns(knowing, CODE, episodes=100).mean() == 1
    guessing = returns(RandomPolicy(gymnasium.spaces.Discrete(16)), CODE, episodes=3000)
    assert guessing.mean() == pytest.approx(1 / 16, abs=0.015)


def test_every_room_has_one_way_on_and_one_back() -> None:
    np.testing.assert_array_equal(np.sort(moves(), axis=1), [[-1, 0, 0, 0, 0, 0, 0, 1]] * ROOMS)
    assert len(set(moves().argmax(1))) > 4, "the same action everywhere would do"


def test_knowing_the_room_opens_the_lock_in_a_step_for_each() -> None:
    knowing = Recognising(textures(), 80, moves().argmax(1))
    result = evaluate(knowing, Environment(LOCK), episodes=100, seed=3, count=20, max_steps=100)
    assert [episode.total for episode in result] == [1.0] * 100
    lengths = [episode.length for episode in result]
    assert min(lengths) == 1, "some episodes begin in the last room"
    assert np.mean(lengths) == pytest.approx((ROOMS + 1) / 2, abs=2)
    guessing = returns(RandomPolicy(gymnasium.spaces.Discrete(8)), LOCK, episodes=3000)
    assert guessing.mean() == pytest.approx(0.11, abs=0.025)


def test_a_lock_is_cut_off_after_32_decisions_and_paid_once() -> None:
    env = StaticLockVector(1, static=0)
    observation, _ = env.reset(seed=0)
    room = likeliest(observation, textures(), 0)[0]
    for _ in range(32):
        assert likeliest(observation, textures(), 0)[0] == room
        observation, reward, terminated, truncated, _ = env.step(moves()[room].argsort()[[2]])
        assert reward == 0 and not terminated
    assert truncated.all()
    observation, reward, terminated, truncated, _ = env.step(moves()[room].argmax(keepdims=True))
    assert not (terminated | truncated).any()
    for room in range(likeliest(observation, textures(), 0)[0], ROOMS):
        assert likeliest(observation, textures(), 0)[0] == room
        observation, reward, terminated, truncated, _ = env.step(moves()[room].argmax(keepdims=True))
        assert (reward[0], terminated[0]) == ((1, True) if room == ROOMS - 1 else (0, False))
    assert env.step(np.array([0]))[1][0] == 0, "the action after an end is ignored"


def test_one_action_leads_back_and_nothing_lies_before_the_first_room() -> None:
    env = StaticLockVector(1, static=0)
    observation, _ = env.reset(seed=0)
    for room in [*range(likeliest(observation, textures(), 0)[0], 0, -1), 0, 0]:
        assert likeliest(observation, textures(), 0)[0] == room
        observation, *_, info = env.step(moves()[room].argmin(keepdims=True))
        assert info["class"] == likeliest(observation, textures(), 0), "a probe must be told where it is"


@pytest.mark.parametrize("env", [CODE, LOCK])
def test_a_seed_repeats_everything_and_a_single_environment_is_the_first_of_a_vector(env: str) -> None:
    single = gymnasium.make(env)
    vector = gymnasium.make_vec(env, num_envs=1, vectorization_mode="vector_entry_point")
    observation, _ = single.reset(seed=4)
    observations, _ = vector.reset(seed=4)
    for _ in range(7):
        np.testing.assert_array_equal(observation, observations[0])
        observation = single.step(2)[0]
        observations = vector.step(np.array([2]))[0]
    check_env(single.unwrapped)


@pytest.mark.parametrize("env", [CODE, LOCK, "actors.envs:StaticRecall-v0"])
def test_static_is_a_parameter(env: str) -> None:
    environments = Environment(env, {"static": 10}).make(3)
    seen = environments.reset([1, 2, 3])["observation"]
    assert seen[seen < 255].max() <= 10 + 40
    with pytest.raises(ValueError, match="static is 230, wanted 0 to 2"):
        Environment(env, {"static": 230}).make(3)
