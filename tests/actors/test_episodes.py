"""Episode accounting."""

import numpy as np

from actors.episodes import Episode, Episodes

YES, NO = np.array([True]), np.array([False])


def update(episodes, reward, decided=YES, ended=NO):
    return episodes.update(np.array([reward], dtype=np.float32), decided, ended)


def test_a_reset_on_the_next_step_by_hand():
    episodes = Episodes([5], gamma=0.5)
    first = 5 * 2**32
    assert (episodes.number[0], episodes.step[0]) == (first, 0)
    assert update(episodes, 1.0) == []
    assert (episodes.number[0], episodes.step[0], episodes.discounted[0]) == (first, 1, 1.0)
    assert update(episodes, 2.0, ended=YES) == [Episode(total=3.0, length=2, stream=5)]
    assert (episodes.number[0], episodes.step[0], episodes.discounted[0]) == (first, 2, 2.5)
    assert update(episodes, 0.0, decided=NO) == []
    assert (episodes.number[0], episodes.step[0], episodes.discounted[0]) == (first + 1, 0, 0.0)
    assert update(episodes, 4.0, ended=YES) == [Episode(total=4.0, length=1, stream=5)]


def test_an_immediate_reset_by_hand():
    episodes = Episodes([0, 1], gamma=0.9)
    reward, both = np.array([1.0, 2.0], dtype=np.float32), np.array([True, True])
    finished = episodes.update(reward, both, np.array([False, True]))
    assert finished == [Episode(2.0, 1, stream=1)]
    episodes.begin(np.array([1]))
    assert episodes.number.tolist() == [0, 2**32 + 1]
    assert episodes.step.tolist() == [1, 0]
    np.testing.assert_allclose(episodes.discounted, [1.0, 0.0])


def test_arrays_that_were_handed_out_do_not_change():
    episodes = Episodes([0], gamma=0.9)
    number, step, discounted = episodes.number, episodes.step, episodes.discounted
    update(episodes, 1.0, ended=YES)
    episodes.begin(np.array([0]))
    assert (number[0], step[0], discounted[0]) == (0, 0, 0.0)


def test_totals_are_summed_in_double_precision():
    episodes = Episodes([0], gamma=0.9)
    for _ in range(10_000):
        update(episodes, 0.1)
    (episode,) = update(episodes, 0.1, ended=YES)
    assert abs(episode.total - 10_001 * float(np.float32(0.1))) < 1e-6
