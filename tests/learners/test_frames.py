import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learners.frames import FrameStack, is_image, stack_windows, stacked_column
from replay.schema import Column


def stacks_seen(frames: np.ndarray, step: np.ndarray, stack: int) -> np.ndarray:
    """What a policy saw of one stream, row by row."""
    history = FrameStack(stack)
    return np.stack([history.push(frames[t, None], step[t, None] == 0)[0].copy() for t in range(len(frames))])


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    stack=st.integers(1, 4),
    shape=st.sampled_from([(5, 6), (5, 6, 3), (2, 5, 6)]),
)
def test_the_learner_rebuilds_the_bytes_that_the_policy_saw(lengths: list[int], stack: int, shape: tuple) -> None:
    step = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    frames = np.random.default_rng(0).integers(0, 256, (len(step), *shape), dtype=np.uint8)
    seen = stacks_seen(frames, step, stack)
    lead = stack - 1
    padded = np.concatenate([np.repeat(frames[:1], lead, 0), frames])[None]
    steps = np.concatenate([np.repeat(step[:1], lead), step])[None]
    rebuilt = stack_windows(torch.from_numpy(padded), torch.from_numpy(steps), stack=stack, lead=lead)
    assert np.array_equal(rebuilt[0].numpy(), seen)


def test_a_stack_repeats_the_first_frame_of_an_episode_and_forgets_the_one_before() -> None:
    frames = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 5, 5), np.uint8)
    seen = stacks_seen(frames, np.array([0, 1, 0, 1]), 3)
    assert seen[:, :, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [2, 2, 2], [2, 2, 3]]


def test_too_little_context_is_refused() -> None:
    with pytest.raises(ValueError, match="a stack of 4 frames needs 3 lead rows, the table gives 1"):
        stack_windows(torch.zeros(1, 3, 5, 5, dtype=torch.uint8), torch.zeros(1, 3, dtype=torch.int32), stack=4, lead=1)


def test_images_are_told_from_vectors_and_stacked_by_planes() -> None:
    assert is_image(Column("uint8", (84, 84))) and not is_image(Column("uint8", (84,)))
    assert not is_image(Column("float32", (84, 84)))
    assert stacked_column(Column("uint8", (84, 80)), 4).shape == (4, 84, 80)
    assert stacked_column(Column("uint8", (84, 80, 3)), 4).shape == (12, 84, 80)
