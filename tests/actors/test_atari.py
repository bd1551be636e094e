"""Atari through its C++ vector class."""

import numpy as np
import pytest
from gymnasium import spaces

from actors.actor import Actor
from actors.environments import Environment, Environments
from actors.evaluator import evaluate
from actors.policy import RandomPolicy
from tests.actors.fakes import InMemoryWeights, RowList

pytest.importorskip("ale_py")

SHORT = {"max_num_frames_per_episode": 60, "noop_max": 1}  # 15 agent steps


def make(count: int = 2, **kwargs) -> Environments:
    return Environment("ALE/Breakout-v5", {**SHORT, **kwargs}).make(count, threads=1)


def play(environments: Environments, seeds: list[int], steps: int) -> np.ndarray:
    environments.reset(seeds)
    right = np.full(environments.count, 2, dtype=np.int64)
    return np.stack([environments.step(right).observation["observation"] for _ in range(steps)])


def test_rows_hold_single_frames():
    environments = make()
    assert environments.observation_space == spaces.Box(0, 255, (84, 84), np.uint8)
    frames = environments.reset([1, 2])["observation"]
    assert frames.shape == (2, 84, 84)
    assert frames.max() > 0
    environments.close()


def test_seeds_decide_what_happens():
    frames = [play(make(), seeds, 20) for seeds in ([5, 6], [5, 6], [5, 7])]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0][:, 0], frames[0][:, 1])
    np.testing.assert_array_equal(frames[0][:, 0], frames[2][:, 0])


def test_registered_settings_are_kept():
    settings = make()._vector_env.unwrapped.spec.kwargs
    assert settings["repeat_action_probability"] == 0.25
    assert settings["frameskip"] == 4
    assert settings["reward_clipping"] is False
    assert settings["max_num_frames_per_episode"] == 60


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_episodes_end_with_their_final_frame_in_both_autoreset_modes(mode):
    environments, writer = make(autoreset_mode=mode), RowList([0, 1])
    actor = Actor(
        RandomPolicy(environments.action_space),
        environments,
        writer,
        InMemoryWeights(),
        name="actor-0",
        seeds=[5, 6],
        rng=np.random.default_rng(0),
        rows=40,
        max_version_lag=None,
        gamma=0.99,
    )
    report = actor.collect()
    assert len(report.episodes) >= 4
    for rows in writer.rows:
        ends = [i for i, row in enumerate(rows[:-1]) if row["truncated"]]
        for end in ends:
            final = rows[end + 1]
            assert (final["mask"], final["episode"], final["step"]) == (0, rows[end]["episode"], rows[end]["step"] + 1)
            assert np.count_nonzero(final["observation"] != rows[end]["observation"]) < 500
        assert [row["mask"] for row in rows].count(0) == len([i for i in ends if i + 1 < len(rows)])
    actor.close()


def test_evaluation_resets_in_the_middle_of_episodes():
    environment = Environment("ALE/Breakout-v5", SHORT)
    played = evaluate(RandomPolicy(spaces.Discrete(4)), environment, episodes=4, seed=0, count=2, max_steps=5)
    assert [(episode.length, episode.finished) for episode in played] == [(5, False)] * 4
