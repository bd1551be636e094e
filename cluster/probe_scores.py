"""How well variables can be read from representations, and how rows lie in them: what `contrail probe` tells."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.experiment import ExperimentError
from cluster.probing import Rows, Variable, variables
from learners.contrast import effective_rank
from learners.probe import Probe, ProbeError, Score, Split, alignment, uniformity

PAIRED = 1_000
"""Rows of which all pairs are taken."""


@dataclass(frozen=True)
class Found:
    """What a probe came to.

    Attributes:
        scores: by variable, then by representation, then by "linear" or "near".
        guesses: by variable of classes what knowing nothing gives, the share of the commonest; numbers have none.
        health: by measure, then by representation.
        left: variables that could not be read, and why.
    """

    scores: dict[str, dict[str, dict[str, Score]]]
    guesses: dict[str, float]
    health: dict[str, dict[str, float]]
    left: dict[str, str]


def scored(rows: Rows, seen: Mapping[str, Tensor], gamma: float, *, only: Collection[str], seed: int) -> Found:
    """Probe representations of rows.

    Args:
        rows: of several episodes.
        seen: representations by name, (n, T, F).
        gamma: discount of the reward to go.
        only: variables to read; none: all.
        seed: of the split in episodes to fit on and to hold out.

    Raises:
        ExperimentError: a variable is not there, or there are too few episodes.
    """
    known, left = variables(rows, gamma)
    if unknown := [name for name in only if name not in known]:
        why = f" ({left[unknown[0]]})" if unknown[0] in left else ""
        raise ExperimentError(f"--variables {unknown[0]} cannot be read{why}: there are {', '.join(known)}")
    decided = torch.from_numpy(rows.decided).flatten()
    episode = torch.from_numpy(rows.episode).flatten()[decided]
    flat = {name: value.flatten(0, 1)[decided] for name, value in seen.items()}
    found = Found({}, {}, _health(rows, seen, flat), left)
    try:
        split = Split.by_episode(episode, seed=seed)
        for name in only or known:
            _read(found, name, known[name], flat, decided, split, episode)
    except ProbeError as error:
        raise ExperimentError(f"{error}: raise --steps or --envs") from error
    return found


def _read(
    found: Found,
    name: str,
    variable: Variable,
    flat: Mapping[str, Tensor],
    decided: Tensor,
    split: Split,
    episode: Tensor,
) -> None:
    """Add a variable's scores."""
    values = torch.from_numpy(variable.values).flatten()[decided]
    part = split.where(values.isfinite())
    if part is None:
        found.left[name] = "too few of the episodes know it"
        return
    target = values.nan_to_num().long() if variable.classes else values.nan_to_num().float()
    found.scores[name] = {
        seen: Probe(features, part, episode).scores(target, classes=variable.classes) for seen, features in flat.items()
    }
    if variable.classes:
        commonest = target[part.fit].mode().values
        found.guesses[name] = float((target[part.held] == commonest).double().mean())


def _health(rows: Rows, seen: Mapping[str, Tensor], flat: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """How the rows lie in each representation."""
    follows = rows.decided[:, :-1] & rows.decided[:, 1:] & (rows.episode[:, :-1] == rows.episode[:, 1:])
    pairs = torch.from_numpy(follows)
    chosen = torch.randperm(len(next(iter(flat.values()))), generator=torch.Generator().manual_seed(0))[:PAIRED]
    every = torch.ones(len(next(iter(flat.values()))), dtype=torch.bool)
    return {
        "numbers": {name: float(value.shape[-1]) for name, value in flat.items()},
        "effective rank": {name: float(effective_rank(value, valid=every)) for name, value in flat.items()},
        "uniformity": {name: uniformity(value[chosen]) for name, value in flat.items()},
        "alignment, next row": {
            name: alignment(value[:, :-1][pairs], value[:, 1:][pairs]) for name, value in seen.items()
        },
    }
