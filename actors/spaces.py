"""Gymnasium spaces as columns: which dtype and shape a value of a space has in a row."""

from typing import Any

import numpy as np
from gymnasium import spaces

from replay.schema import Column

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and for observations Dict of these"


class SpaceError(ValueError):
    """A space that has no column; names the space and what is supported."""


def columns_of(space: spaces.Space, name: str) -> dict[str, Column]:
    """The columns that hold values of a space.

    Args:
        space: of one environment, not of a batch.
        name: of the column; the parts of a Dict are called `name.key`, nested ones `name.key.key`.

    Returns:
        One column, or one per leaf of a Dict, in the space's order. Booleans and bits become uint8, since Arrow packs
        booleans into bits that numpy cannot view. Discrete values are int64 as the environment counts them, with
        its `start`.

    Raises:
        SpaceError: the space has no column, or an action's space is a Dict.
    """
    if isinstance(space, spaces.Dict):
        if name == "action":
            raise SpaceError(f"action space {space} is a Dict; flatten it into one of Box, Discrete or MultiDiscrete")
        return {
            key: column for part, inner in space.items() for key, column in columns_of(inner, f"{name}.{part}").items()
        }
    return {name: Column(_dtype_of(space, name).name, tuple(space.shape or ()))}


def split(space: spaces.Space, value: Any, name: str = "observation") -> dict[str, np.ndarray]:
    """A batched value of a space as its columns, (n, ...) each: the names and dtypes of `columns_of`.

    Arrays that already have their column's dtype are handed through, not copied.
    """
    if isinstance(space, spaces.Dict):
        return {
            key: column
            for part, inner in space.items()
            for key, column in split(inner, value[part], f"{name}.{part}").items()
        }
    array, dtype = np.asarray(value), _dtype_of(space, name)
    return {name: array if array.dtype == dtype else array.astype(dtype)}


def _dtype_of(space: spaces.Space, name: str) -> np.dtype:
    if isinstance(space, spaces.Box):
        return np.dtype(np.uint8) if space.dtype == np.bool_ else space.dtype
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return np.dtype(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return np.dtype(np.uint8)
    raise SpaceError(f"{name} space {space} has no column; supported are {SUPPORTED}")
