"""Whether something is slower than it was: one measurement of scaling beside an earlier one."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster.experiment import ExperimentError
from cluster.result_table import ResultTable

BY = 0.05
"""Share that a median may fall below the least of the earlier repeats."""
SPEEDS = {"trained": "env steps/s trained", "generated": "env steps/s generated"}


def earlier(path: Path, recipe: str, flags: list[str]) -> dict[str, Any]:
    """An earlier measurement, of its folder or its `scale.json`.

    Raises:
        ExperimentError: there is none, or it is one of something else.
    """
    file = path / "scale.json" if path.is_dir() else path
    try:
        found = json.loads(file.read_text())
        before = (found["recipe"], found["flags"])
        found["configurations"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(f"{file} is no scale.json that can be read ({error}): give one with --compare") from error
    if before != (recipe, flags):
        told, now = (" ".join([name, *words]) for name, words in (before, (recipe, flags)))
        raise ExperimentError(f"{file} was measured with {told}, not {now}: compare measurements of the same thing")
    return found


def in_both(before: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those configurations that an earlier measurement has a speed of.

    Raises:
        ExperimentError: none is.
    """
    old = [name for name, each in before["configurations"].items() if each["trained"] is not None]
    new = list(names)
    found = [name for name in new if name in old]
    if not found:
        raise ExperimentError(
            f"no configuration is in both: measured were {', '.join(old) or 'none'}, now there are {', '.join(new)}: "
            "give --compare a measurement with some of these numbers"
        )
    return found


def compared(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[ResultTable, int]:
    """A row for each speed of each configuration that both have, and how many of them fell.

    A speed fell where its median is more than 5 % below the least of the earlier repeats. A configuration that was
    measured and now fails has fallen, too.

    Args:
        before: content of an earlier `scale.json`.
        now: that of the later one.

    Raises:
        ExperimentError: no configuration is in both.
    """
    old, new = before["configurations"], now["configurations"]
    cells, fell = [], 0
    for name in in_both(before, new):
        for speed, words in SPEEDS.items():
            verdict, was, is_ = _beside(old[name][speed], new[name][speed])
            fell += verdict in (FELL, FAILED)
            cells.append([name, words, was, is_, verdict])
    heads = ["configuration", "speed", "before", "now", ""]
    return ResultTable("Beside the earlier measurement", heads, cells, {0, 1, 4}), fell


FELL, FAILED = "FELL", "FAILED"


def _beside(was: Mapping[str, int | float], now: Mapping[str, int | float] | None) -> tuple[str, str, str]:
    """What became of a speed, and both in words."""
    if now is None:
        return FAILED, _words(was), "-"
    change = now["median"] / was["median"] - 1
    fell = now["median"] < (1 - BY) * was["low"]
    return FELL if fell else "", _words(was), f"{_words(now)} {change:+.0%}"


def _words(figure: Mapping[str, int | float]) -> str:
    return f"{figure['median']:,.0f} ({figure['low']:,.0f}-{figure['high']:,.0f})"
