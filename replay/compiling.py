"""Compiling loops, where numba is installed: it changes nothing but speed."""

import importlib
import inspect
from collections.abc import Callable


def compiled(function: Callable, signature: str) -> Callable:
    """A function compiled for arguments of one signature; while it runs, other threads do too.

    Raises:
        ImportError: numba is not installed.
    """
    numba = importlib.import_module("numba")
    plain = inspect.unwrap(function)  # a type checker may have wrapped it
    try:
        return numba.njit(signature, cache=True, nogil=True)(plain)
    except (RuntimeError, OSError):  # no folder in which to keep the result, or no room there
        return numba.njit(signature, nogil=True)(plain)
