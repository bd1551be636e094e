"""Histograms of several shards as one."""

from collections.abc import Sequence

import numpy as np

Histograms = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name: counts (n,) and edges (n + 1,)."""

BINS = 30


def merged(parts: Sequence[Histograms]) -> Histograms:
    """Shards' histograms over common edges; a bin's windows go to the bin of its middle."""
    together: Histograms = {}
    for name in sorted({name for part in parts for name in part}):
        found = [part[name] for part in parts if name in part]
        edges = np.linspace(min(e[0] for _, e in found), max(e[-1] for _, e in found), BINS + 1)
        middles = np.concatenate([(e[1:] + e[:-1]) / 2 for _, e in found])
        together[name] = np.histogram(middles, edges, weights=np.concatenate([counts for counts, _ in found]))
    return together


def of_store(parts: Sequence[Histograms]) -> Histograms:
    """Shards' histograms under the tags of a run: "replay/TABLE/priority"."""
    return {f"replay/{name}": histogram for name, histogram in merged(parts).items()}
