"""Runs of a recipe in this process."""

from pathlib import Path

import torch

from cluster.experiment import Experiment, Spaces, Topology
from cluster.world import Advance, Local
from replay.opening import Places

HERE = Topology(actors=1, learners=1, gpus_per_learner=0, local=True)


def advances(experiment: Experiment, folder: Path, *, steps: int, sharpen: float = 1.0) -> list[Advance]:
    """Learner steps, with the first policy's outputs multiplied by `sharpen`."""
    places = Places(live=folder / "live", kept=folder / "kept")
    checked = experiment.checked()
    with Local(checked, Spaces.of(checked.environment), places=places) as world:
        with torch.no_grad():
            world.learner.model.policy.linear.weight.mul_(sharpen)
        world.learner.announce()
        return [world.advance() for _ in range(steps)]


def mean_return(experiment: Experiment, folder: Path) -> float:
    """Of the last tenth of a whole run's episodes."""
    totals: list[float] = []
    places, checked = Places(live=folder / "live", kept=folder / "kept"), experiment.checked()
    with Local(checked, Spaces.of(checked.environment), places=places) as world:
        steps = 0
        while steps < checked.steps:
            advance = world.advance()
            steps = advance.steps
            totals += [episode.total for report in advance.reports for episode in report.episodes]
    last = totals[-len(totals) // 10 :]
    return sum(last) / len(last)
