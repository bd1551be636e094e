"""Tables of `benchmarks.broadcast`: latencies beside their floors, and what publishing costs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BAR = 2.0
"""How many times the floor of Ray we allow ourselves."""


@dataclass(frozen=True)
class Exchange:
    """One version from its publisher to all actors, in milliseconds.

    Attributes:
        publish: until the publisher could go on.
        loaded: from the beginning of the publication until an actor had it, for each of them.
    """

    publish: float
    loaded: list[float]


@dataclass(frozen=True)
class Round:
    """Both sides once, and a copy of the weights in the publisher's process, in milliseconds."""

    ours: Exchange
    floor: Exchange
    copy: float


def summary(rounds: Sequence[Round], actors: int, cores: int) -> dict[str, Any]:
    """What a case's rounds came to.

    Latencies are over all actors of all rounds; ratios are medians over the rounds, each of a round's own figures.

    Args:
        rounds: of one size and number of actors.
        actors: how many.
        cores: how many of them can copy at a time.
    """
    copy = statistics.median(one.copy for one in rounds)
    told: dict[str, Any] = {"copy_ms": copy, "copies_floor_ms": copy * (1 + math.ceil(actors / cores))}
    for side in ("ours", "floor"):
        exchanges: list[Exchange] = [getattr(one, side) for one in rounds]
        p50, p99 = np.percentile([time for each in exchanges for time in each.loaded], [50, 99])
        last = statistics.median(max(each.loaded) for each in exchanges)
        publish = statistics.median(each.publish for each in exchanges)
        told |= {f"{side}_{name}_ms": value for name, value in _named(p50, p99, last, publish)}
    told["ratio"] = statistics.median(np.median(one.ours.loaded) / np.median(one.floor.loaded) for one in rounds)
    told["ratio_last"] = statistics.median(max(one.ours.loaded) / max(one.floor.loaded) for one in rounds)
    told["ratio_p99"] = told["ours_p99_ms"] / told["floor_p99_ms"]
    told["publish_per_copy"] = statistics.median(one.ours.publish / one.copy for one in rounds)
    return {name: round(float(value), 3) for name, value in told.items()}


def _named(*values: float) -> list[tuple[str, float]]:
    return list(zip(("p50", "p99", "last", "publish"), values, strict=True))


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Two tables: latencies, then the publisher's time.

    Args:
        lines: of cases, each with its `summary`.
    """
    rows = [
        "| weights | actors | ours, p50 / p99 | floor of Ray, p50 / p99 | ours / floor | p99 / p99 "
        "| all loaded, ours / floor | ratio | copies alone | ours / copies |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        times = [f"{line[f'{side}_p50_ms']:.1f} / {line[f'{side}_p99_ms']:.1f} ms" for side in ("ours", "floor")]
        last = f"{line['ours_last_ms']:.1f} / {line['floor_last_ms']:.1f} ms"
        copies = f"{line['copies_floor_ms']:.1f} ms | {line['ours_last_ms'] / line['copies_floor_ms']:.1f}"
        cells = [f"{line['megabytes']} MB", str(line["actors"]), *times, _ratio(line["ratio"])]
        cells += [f"{line['ratio_p99']:.2f}", last, _ratio(line["ratio_last"]), copies]
        rows.append(f"| {' | '.join(cells)} |")
    rows += [
        "",
        "| weights | actors | publish | put, floor of Ray | a copy | publish / copy |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        times = [f"{line[name]:.2f} ms" for name in ("ours_publish_ms", "floor_publish_ms", "copy_ms")]
        cells = [f"{line['megabytes']} MB", str(line["actors"]), *times, f"{line['publish_per_copy']:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _ratio(ratio: float) -> str:
    """Bold where the bar is missed."""
    return f"{ratio:.2f}" if ratio <= BAR else f"**{ratio:.2f}**"
