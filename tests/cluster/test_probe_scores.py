import numpy as np
import pytest
import torch

from cluster.probe_command import _show
from cluster.probe_scores import Found, scored
from cluster.probing import Rows


def rows(classes: np.ndarray) -> Rows:
    """Episodes of four rows in two streams; what they say is the same all through each."""
    shape = (2, 16)
    episode = np.arange(8).repeat(4).reshape(shape)
    zeros = np.zeros(shape)
    return Rows(
        {"observation": np.zeros((*shape, 1), np.float32)},
        action=zeros.astype(np.int64),
        reward=zeros.astype(np.float32),
        step=np.tile(np.arange(4, dtype=np.int32), 8).reshape(shape),
        episode=episode,
        decided=np.ones(shape, np.bool_),
        ended=np.tile([False, False, False, True], 8).reshape(shape),
        info={"info.class": classes[episode], "info.number": classes[episode] + 0.5},
    )


def test_a_guess_that_is_never_right_is_told_and_numbers_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    # Which episodes are held out depends on the seed alone: their class is the one that the others never show most.
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    classes = np.zeros(8)
    classes[order[:2]] = 1.0
    found: Found = scored(
        rows(classes), {"encoder": torch.randn(2, 16, 3)}, 0.9, only=["info.class", "info.number"], seed=0
    )
    assert found.guesses == {"info.class": 0.0}
    _show(found, 1)
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert all(line[1] == "0.00" for line in told if line[:1] == ["info.class"])
    assert all(len(line) == 3 and line[2] == "±?" for line in told if line[:1] == ["info.number"])
