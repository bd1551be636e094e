"""Modules of the package's optional extras, imported where they are first wanted."""

import importlib
from typing import Any


class MissingExtra(ImportError):
    """A module of an extra that cannot be imported: says what wants it and how to get it."""


def needed(module: str, what: str, extra: str) -> Any:
    """A module of an optional extra.

    Args:
        module: its name.
        what: the beginning of a sentence about what wants it, which ends in who does that.
        extra: of this package, that brings it.

    Raises:
        MissingExtra: it is not installed, or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        text = f'{what}, which cannot be imported ({error}): pip install "contrail[{extra}]"'
        raise MissingExtra(text) from error
