"""Running moments against the moments of everything at once."""

import pytest
import torch

from learners.normalise import RunningMoments


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_equals_the_moments_of_all_rows(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    running, kept = RunningMoments(shape), []
    for size in (1, 7, 50):
        batch = 1000 + 5 * torch.randn(size, 4, *shape, generator=generator)
        mask = (torch.rand(size, 4, generator=generator) < 0.5).float()
        running.update(batch, mask)
        kept.append(batch[mask > 0])
    rows = torch.cat(kept).double()
    assert running.count == len(rows)
    torch.testing.assert_close(running.mean, rows.mean(0).float())
    torch.testing.assert_close(running.var, rows.var(0, correction=0).float(), rtol=1e-3, atol=0)


def test_two_ranks_equal_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mask = torch.randn(10, 3, generator=generator), torch.ones(10)
    mask[4] = 0
    sent: list[torch.Tensor] = []
    RunningMoments((3,)).update(x[6:], mask[6:], lambda own: sent.append(own) or own)
    one, two = RunningMoments((3,)), RunningMoments((3,))
    one.update(x, mask)
    two.update(x[:6], mask[:6], lambda own: own + sent[0])
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(buffer, two.get_buffer(name))


def test_nothing_seen_changes_nothing() -> None:
    running = RunningMoments((2,))
    running.update(torch.full((3, 2), 7.0), torch.zeros(3))
    assert running.count == 0
    x = torch.tensor([[1.0, -50.0]])
    torch.testing.assert_close(running.normalise(x), torch.tensor([[1.0, -10.0]]))


def test_normalised_values_are_standard_and_clipped() -> None:
    running = RunningMoments()
    x = 3 + 2 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    running.update(x, torch.ones(5000))
    scaled = running.normalise(x)
    assert scaled.mean() == pytest.approx(0, abs=1e-3)
    assert scaled.std() == pytest.approx(1, abs=1e-2)
    assert running.scale() == pytest.approx(0.5, abs=0.02)
    assert running.normalise(torch.tensor([1e6]), clip=4.0) == 4.0


def test_a_constant_is_not_divided_by_zero() -> None:
    running = RunningMoments()
    running.update(torch.full((8,), 2.5), torch.ones(8))
    assert running.normalise(torch.tensor([2.5])) == 0


def test_it_is_saved_with_the_model() -> None:
    assert set(RunningMoments((2,)).state_dict()) == {"mean", "var", "count"}
