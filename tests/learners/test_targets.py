"""Advantages against the literal definition and against values known in closed form."""

import time

import pytest
import torch

from learners.targets import explained_variance, gae, has_successor, moments, standardise


def windows(batch: int, rows: int, seed: int) -> dict[str, torch.Tensor]:
    """Random rows of the row layout: a final observation (mask 0) follows every end."""
    generator = torch.Generator().manual_seed(seed)
    columns = {name: torch.randn(batch, rows, generator=generator, dtype=torch.float64) for name in ("reward", "value")}
    terminated, truncated, mask = (torch.zeros(batch, rows, dtype=torch.float64) for _ in range(3))
    mask += 1
    for stream in range(batch):
        for row in range(rows - 1):
            draw = torch.rand((), generator=generator)
            if mask[stream, row] and draw < 0.25:
                (terminated if draw < 0.12 else truncated)[stream, row] = 1
                mask[stream, row + 1] = 0
    return columns | {"terminated": terminated, "truncated": truncated, "mask": mask}


def literal_gae(columns: dict[str, torch.Tensor], gamma: float, lam: float) -> torch.Tensor:
    """For every row, the sum of all later one-step errors with powers of gamma * lam, written out."""
    reward, value = columns["reward"], columns["value"]
    advantage = torch.zeros_like(value)
    for stream, start in torch.cartesian_prod(torch.arange(value.shape[0]), torch.arange(value.shape[1] - 1)).tolist():
        for power, row in enumerate(range(start, value.shape[1] - 1)):
            if not columns["mask"][stream, row]:
                break
            bootstrap = 0 if columns["terminated"][stream, row] else value[stream, row + 1]
            error = reward[stream, row] + gamma * bootstrap - value[stream, row]
            advantage[stream, start] += (gamma * lam) ** power * error
            if columns["terminated"][stream, row] or columns["truncated"][stream, row]:
                break
    return advantage


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_sum_of_one_step_errors(lam: float, seed: int) -> None:
    columns = windows(4, 23, seed)
    torch.testing.assert_close(gae(**columns, gamma=0.93, lam=lam), literal_gae(columns, 0.93, lam), rtol=0, atol=1e-12)


def test_hand_computed() -> None:
    row = lambda *values: torch.tensor([values])  # noqa: E731
    advantage = gae(
        row(1.0, 2.0, 3.0, 9.0),
        row(0.5, 1.0, 1.5, 2.0),
        row(0.0, 0.0, 0.0, 0.0),
        row(0.0, 0.0, 1.0, 0.0),
        row(1.0, 1.0, 1.0, 0.0),
        gamma=0.5,
        lam=0.5,
    )
    # errors: 1 + .5 - .5 = 1; 2 + .75 - 1 = 1.75; 3 + 1 - 1.5 = 2.5, the final observation's 2.0 bootstraps.
    torch.testing.assert_close(advantage, row(1 + 0.25 * (1.75 + 0.25 * 2.5), 1.75 + 0.25 * 2.5, 2.5, 0.0))


@pytest.mark.parametrize(("flag", "reached"), [("terminated", 3), ("truncated", 4)])
def test_an_end_hides_what_follows(flag: str, reached: int) -> None:
    """Even without a final observation: only a truncated row sees the next value, none a later reward."""
    columns = windows(1, 6, 0) | {"mask": torch.ones(1, 6, dtype=torch.float64)}
    columns |= {name: torch.zeros(1, 6, dtype=torch.float64) for name in ("terminated", "truncated")}
    columns[flag][0, 2] = 1
    rows = torch.arange(6)
    changed = columns | {"value": columns["value"] + 100 * (rows >= reached), "reward": columns["reward"] + (rows >= 3)}
    before, after = (gae(**each, gamma=0.9, lam=0.9) for each in (columns, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3:5], after[:, 3:5]).any()


def test_no_advantage_without_decision_or_successor() -> None:
    columns = windows(8, 30, 3)
    advantage = gae(**columns, gamma=0.99, lam=0.95)
    assert (advantage[has_successor(columns["mask"]) == 0] == 0).all()
    assert (has_successor(columns["mask"])[:, -1] == 0).all()
    assert columns["mask"][:, -1].any(), "the mask itself was changed"


def test_lambda_one_is_the_return_minus_the_value() -> None:
    columns = windows(1, 9, 5)
    for flag in ("terminated", "truncated"):
        columns[flag].zero_()
    columns["mask"].fill_(1)
    returns, expected = columns["value"][0, -1], []
    for reward in reversed(columns["reward"][0, :-1]):
        returns = reward + 0.9 * returns
        expected.append(returns)
    expected = torch.stack(expected[::-1]) - columns["value"][0, :-1]
    torch.testing.assert_close(gae(**columns, gamma=0.9, lam=1.0)[0, :-1], expected)


def test_time_limit_does_not_lower_the_value() -> None:
    """Reward 1 for ever, cut off every 5 rows: the fixed point of value = value + advantage is 1 / (1 - gamma)."""
    rows = 6
    reward, value = torch.ones(1, rows, dtype=torch.float64), torch.zeros(1, rows, dtype=torch.float64)
    truncated, mask = torch.zeros_like(reward), torch.ones_like(reward)
    truncated[0, -2], mask[0, -1] = 1, 0
    for _ in range(400):
        target = value + gae(reward, value, torch.zeros_like(reward), truncated, mask, gamma=0.9, lam=0.95)
        value = target[:, :-1].mean().expand_as(value)  # one state: every row has the same value
    assert value[0, 0] == pytest.approx(10.0, abs=1e-6)


def test_fixed_point_of_a_two_state_chain() -> None:
    """Left goes right with reward 1; right terminates with reward 3: V = (1 + gamma 3, 3)."""
    value = torch.zeros(1, 3, dtype=torch.float64)
    reward = torch.tensor([[1.0, 3.0, 0.0]], dtype=torch.float64)
    terminated = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    for _ in range(50):
        value = value + gae(reward, value, terminated, torch.zeros_like(mask), mask, gamma=0.9, lam=0.5)
    torch.testing.assert_close(value[0, :2], torch.tensor([1 + 0.9 * 3, 3.0], dtype=torch.float64), atol=1e-6, rtol=0)


def test_gae_is_fast() -> None:
    columns = {name: column.float() for name, column in windows(32, 129, 0).items()}
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        gae(**columns, gamma=0.99, lam=0.95)
        seconds.append(time.perf_counter() - begin)
    assert min(seconds) < 0.005


def test_moments_over_two_ranks_equal_those_of_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x = 1000 + torch.randn(6, 7, generator=generator)
    mask = (torch.rand(6, 7, generator=generator) < 0.6).float()
    kept = x[mask > 0]
    mean, variance = moments(x, mask)
    torch.testing.assert_close(mean, kept.mean())
    torch.testing.assert_close(variance, kept.var(correction=0), rtol=1e-4, atol=0)

    # What an all-reduce would give rank 0: each call's own sum plus the one that rank 1 makes at the same point.
    halves = [(x[:1], mask[:1]), (x[1:], mask[1:])]
    other = [torch.stack([halves[1][1].sum(), (halves[1][0] * halves[1][1]).sum()])]
    other.append(((halves[1][0] - mean).square() * halves[1][1]).sum())
    replies = iter(other)
    torch.testing.assert_close(moments(*halves[0], total=lambda own: own + next(replies)), (mean, variance))


def test_standardised_rows_have_mean_zero_and_deviation_one() -> None:
    x, mask = torch.arange(10.0).view(2, 5), torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
    result = standardise(x, mask)
    assert (result[mask == 0] == 0).all()
    torch.testing.assert_close(result[mask > 0].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(result[mask > 0].std(correction=0), torch.tensor(1.0))
    assert (standardise(torch.ones(1, 1), torch.ones(1, 1)) == 0).all(), "a single row has no spread"


def test_explained_variance() -> None:
    target, mask = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    assert explained_variance(target, target, mask) == 1
    assert explained_variance(torch.full_like(target, 2.0), target, mask) == pytest.approx(0.0)
    assert explained_variance(-target, target, mask) == pytest.approx(1 - 4)
    assert explained_variance(target, torch.ones_like(target), mask) == 0
