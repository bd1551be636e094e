"""Evaluation: exactly so many episodes, none favoured."""

import numpy as np
import pytest
from gymnasium import spaces

from actors.environments import Environment, environment_seeds
from actors.evaluator import EVALUATOR, evaluate
from actors.policy import RandomPolicy
from tests.actors.counting import episode_length, reward_of
from tests.actors.fakes import CountingPolicy

COUNTING = Environment("tests.actors.counting:Counting-v0")


@pytest.mark.parametrize(("episodes", "count"), [(1, 4), (4, 4), (7, 3), (6, 2)])
def test_episodes_are_the_first_of_every_slot_in_equal_share(episodes, count):
    played = evaluate(CountingPolicy(), COUNTING, episodes=episodes, seed=3, count=count, max_steps=50)
    slots = min(count, episodes)
    assert [episode.stream for episode in played] == [i % slots for i in range(episodes)]
    assert len({episode.length for episode in played}) > 1 or episodes == 1
    for index, episode in enumerate(played):
        seed = environment_seeds(3, EVALUATOR, slots, incarnation=index // slots)[index % slots]
        assert episode.finished
        assert episode.length == episode_length(seed, 0)


def test_totals_are_those_of_the_environment():
    (episode,) = evaluate(CountingPolicy(), COUNTING, episodes=1, seed=0, count=1, max_steps=50)
    (seed,) = environment_seeds(0, EVALUATOR, 1)
    place = np.float32(seed)  # what the policy sees of the seed
    total = sum(reward_of(seed, t + 1, int(np.float32(place + np.float32(t))) % 3) for t in range(episode.length))
    assert episode.total == pytest.approx(total)


def test_long_episodes_are_cut_off_and_say_so():
    played = evaluate(CountingPolicy(), COUNTING, episodes=12, seed=0, count=4, max_steps=2)
    assert {episode.finished for episode in played} == {True, False}
    for episode in played:
        assert episode.length <= 2
        assert episode.finished or episode.length == 2


def test_the_mean_is_not_pulled_towards_short_episodes():
    """Taking the first 40 episodes to finish over 8 slots would miss every slow one."""
    played = evaluate(CountingPolicy(), COUNTING, episodes=40, seed=1, count=8, max_steps=50)
    seeds = [seed for turn in range(5) for seed in environment_seeds(1, EVALUATOR, 8, incarnation=turn)]
    assert [episode.length for episode in played] == [episode_length(seed, 0) for seed in seeds]


def test_an_evaluation_can_be_repeated():
    def lengths(seed: int) -> list[int]:
        policy = RandomPolicy(spaces.Discrete(2))
        played = evaluate(policy, Environment("CartPole-v1"), episodes=6, seed=seed, count=3, max_steps=500)
        assert all(episode.total == episode.length for episode in played)
        return [episode.length for episode in played]

    assert lengths(0) == lengths(0) != lengths(1)
