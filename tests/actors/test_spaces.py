"""Spaces as columns."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from actors.spaces import SpaceError, columns_of, split
from replay.schema import Column


@pytest.mark.parametrize(
    ("space", "column"),
    [
        (spaces.Box(-1, 1, (3,), np.float32), Column("float32", (3,))),
        (spaces.Box(-1, 1, (2, 3), np.float64), Column("float64", (2, 3))),
        (spaces.Box(0, 255, (84, 84), np.uint8), Column("uint8", (84, 84))),
        (spaces.Box(0, 1, (4,), np.bool_), Column("uint8", (4,))),
        (spaces.Discrete(5), Column("int64")),
        (spaces.Discrete(5, start=-2, dtype=np.int32), Column("int64")),
        (spaces.MultiDiscrete([2, 3]), Column("int64", (2,))),
        (spaces.MultiBinary(4), Column("uint8", (4,))),
    ],
)
def test_a_plain_space_is_one_column_of_its_dtype_and_shape(space, column):
    assert columns_of(space, "observation") == {"observation": column}
    batch = batch_space(space, 6).sample()
    (values,) = split(space, batch).values()
    assert (str(values.dtype), values.shape) == (column.dtype, (6, *column.shape))
    np.testing.assert_array_equal(values, batch)


def test_a_nested_dict_is_dotted_columns_with_their_values():
    inner = spaces.Dict({"left": spaces.Box(0, 255, (2,), np.uint8), "on": spaces.MultiBinary(3)})
    space = spaces.Dict({"camera": inner, "place": spaces.Discrete(3, start=1)})
    assert columns_of(space, "observation") == {
        "observation.camera.left": Column("uint8", (2,)),
        "observation.camera.on": Column("uint8", (3,)),
        "observation.place": Column("int64"),
    }
    batch = batch_space(space, 4).sample()
    columns = split(space, batch)
    assert list(columns) == list(columns_of(space, "observation"))
    np.testing.assert_array_equal(columns["observation.camera.left"], batch["camera"]["left"])
    np.testing.assert_array_equal(columns["observation.place"], batch["place"])
    assert columns["observation.camera.on"].dtype == np.uint8


def test_arrays_of_the_right_dtype_are_not_copied():
    frames = np.zeros((2, 84, 84), dtype=np.uint8)
    assert np.shares_memory(split(spaces.Box(0, 255, (84, 84), np.uint8), frames)["observation"], frames)


@pytest.mark.parametrize("space", [spaces.Text(3), spaces.Tuple([spaces.Discrete(2)])])
def test_a_space_without_a_column_is_refused_by_name(space):
    with pytest.raises(SpaceError, match=r"observation space (Text|Tuple).*supported are Box"):
        columns_of(space, "observation")


def test_an_action_may_not_be_a_dict():
    with pytest.raises(SpaceError, match=r"action space Dict.*flatten"):
        columns_of(spaces.Dict({"jump": spaces.Discrete(2)}), "action")
