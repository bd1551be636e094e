import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from learners.probe import Probe, ProbeError, Split, alignment, logistic, ridge, uniformity

EPISODES, LENGTH = 40, 25


def data(*, seed: int = 0, apart: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of rows, and their episodes; rows of an episode share an offset, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    episode = torch.arange(EPISODES).repeat_interleave(LENGTH)
    offset = apart * torch.randn(EPISODES, 8, generator=generator)[episode]
    return offset + torch.randn(EPISODES * LENGTH, 8, generator=generator), episode


def noise(*, seed: int = 1) -> torch.Tensor:
    return torch.randn(EPISODES * LENGTH, generator=torch.Generator().manual_seed(seed))


@given(sizes=st.lists(st.integers(1, 6), min_size=3, max_size=30), seed=st.integers(0, 9))
def test_no_episode_is_in_two_parts_of_a_split_and_no_row_is_lost(sizes: list[int], seed: int) -> None:
    episode = torch.repeat_interleave(torch.arange(len(sizes)) * 7, torch.tensor(sizes))
    episode = episode[torch.randperm(len(episode), generator=torch.Generator().manual_seed(seed))]
    split = Split.by_episode(episode, seed=seed)
    parts = [set(episode[rows].tolist()) for rows in (split.fit, split.tune, split.held)]
    assert all(parts) and sum(map(len, parts)) == len(sizes)
    assert sorted(torch.cat([split.fit, split.tune, split.held]).tolist()) == list(range(len(episode)))


def test_two_episodes_are_too_few() -> None:
    with pytest.raises(ProbeError, match="2 episodes cannot be split in three"):
        Split.by_episode(torch.tensor([0, 0, 1]))


def test_ridge_is_its_definition_and_least_squares_without_penalty(rng: np.random.Generator) -> None:
    x, y, new = (torch.from_numpy(rng.normal(size=shape)) for shape in ((30, 4), (30,), (5, 4)))
    with_one = torch.cat([x, torch.ones(30, 1)], 1)
    exact = torch.cat([new, torch.ones(5, 1)], 1) @ torch.linalg.lstsq(with_one, y.unsqueeze(1)).solution
    torch.testing.assert_close(ridge(x, y, new, penalty=0.0), exact.squeeze(1))
    # The penalised coefficients are those of least squares with rows sqrt(30 * penalty) I and targets 0 added.
    centred, target = x - x.mean(0), y - y.mean()
    more = torch.cat([centred, math.sqrt(30 * 0.5) * torch.eye(4, dtype=torch.float64)])
    weight = torch.linalg.lstsq(more, torch.cat([target, torch.zeros(4)]).unsqueeze(1)).solution
    torch.testing.assert_close(ridge(x, y, new, penalty=0.5), ((new - x.mean(0)) @ weight).squeeze(1) + y.mean())


def test_a_logistic_regression_finds_the_probabilities(rng: np.random.Generator) -> None:
    x = torch.from_numpy(rng.normal(size=(4000, 2))).float()
    truth = torch.tensor([[2.0, 0.0, -1.0], [0.0, -1.0, 1.0]])
    y = torch.multinomial((x @ truth).softmax(1), 1, generator=torch.Generator().manual_seed(0)).squeeze(1)
    logits = logistic(x, y, x[:100], classes=3, penalty=0.0)
    torch.testing.assert_close(logits.softmax(1), (x[:100] @ truth).softmax(1), atol=0.08, rtol=0)


def test_what_is_linear_is_read_and_noise_is_not() -> None:
    features, episode = data()
    probe = Probe(features, Split.by_episode(episode), episode)
    linear = features @ torch.arange(8.0)
    read, unread = probe.scores(linear, classes=False), probe.scores(noise(), classes=False)
    assert read["linear"].value > 0.999 and read["near"].value > 0.5
    assert abs(unread["linear"].value) < 0.05 and unread["near"].value < 0.05
    assert unread["linear"].low < unread["linear"].value < unread["linear"].high
    known = probe.scores((linear > 0).long() + 5, classes=True)
    guess = probe.scores((noise() > 0).long(), classes=True)
    assert known["linear"].value > 0.97 and known["near"].value > 0.85
    assert abs(guess["linear"].value - 0.5) < 0.1 and guess["linear"].low < 0.5 < guess["linear"].high


def test_telling_episodes_apart_is_no_skill() -> None:
    """A number drawn for each episode lies in the fitted rows' neighbourhood; on other episodes it cannot be known."""
    features, episode = data(apart=3.0)
    drawn = noise()[:EPISODES][episode]
    scores = Probe(features, Split.by_episode(episode), episode).scores(drawn, classes=False)
    assert scores["linear"].value < 0.3 and scores["near"].value < 0.3
    # Were rows held out instead of episodes, they would know it.
    rows = torch.arange(len(features))
    leaky = Probe(features, Split(rows[rows % 4 > 1], rows[rows % 4 == 1], rows[rows % 4 == 0]), episode)
    assert leaky.scores(drawn, classes=False)["near"].value > 0.5


def test_a_square_is_near_but_not_linear() -> None:
    features, episode = data()
    scores = Probe(features[:, :1], Split.by_episode(episode), episode).scores(features[:, 0].square(), classes=False)
    assert scores["linear"].value < 0.2 and scores["near"].value < 0.95


def test_a_feature_that_hardly_changed_before_does_no_harm() -> None:
    features, episode = data()
    split = Split.by_episode(episode)
    jumping = torch.cat([features, 1e-4 * noise().unsqueeze(1)], 1)
    jumping[split.held, -1] = 1.0
    target = features[:, 0] + noise(seed=2)
    plain, harmed = (
        Probe(each, split, episode).scores(target, classes=False)["linear"] for each in (features, jumping)
    )
    assert harmed.value > plain.value - 0.15


def test_rows_where_a_variable_is_not_known_are_left_out() -> None:
    _, episode = data()
    split = Split.by_episode(episode)
    known = torch.ones(len(episode), dtype=torch.bool)
    known[split.fit[:10]] = False
    part = split.where(known)
    assert part is not None and len(part.fit) == len(split.fit) - 10 and torch.equal(part.held, split.held)
    known[split.tune] = False
    assert split.where(known) is None


def test_alignment_and_uniformity_are_their_definitions(rng: np.random.Generator) -> None:
    x, y = (torch.from_numpy(rng.normal(size=(20, 5))) for _ in range(2))
    u, v = normalize(x, dim=1), normalize(y, dim=1)
    slow = sum(float((u[i] - v[i]) @ (u[i] - v[i])) for i in range(20)) / 20
    assert alignment(x, y) == pytest.approx(slow)
    pairs = [math.exp(-2 * float((u[i] - u[j]) @ (u[i] - u[j]))) for i in range(20) for j in range(i)]
    assert uniformity(x) == pytest.approx(math.log(sum(pairs) / len(pairs)))


def test_the_ends_of_both_measures(rng: np.random.Generator) -> None:
    sphere = torch.from_numpy(rng.normal(size=(800, 64)))
    point = torch.ones(800, 64)
    assert uniformity(point) == pytest.approx(0, abs=1e-6) and uniformity(sphere) < -3.8
    assert alignment(sphere, 3 * sphere) == pytest.approx(0, abs=1e-12)
    assert alignment(sphere, sphere.flip(0)) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("episodes", "known"), [(16, False), (20, True)])
def test_few_held_out_episodes_have_no_interval(episodes: int, known: bool) -> None:
    """A quarter is held out: draws of one episode would be the same each time, an interval of width 0."""
    features, episode = data()
    rows = episode < episodes
    split = Split.by_episode(episode[rows])
    score = Probe(features[rows], split, episode[rows]).scores(noise()[rows], classes=False)["linear"]
    assert (score.low is not None) == known and (score.high is not None) == known
