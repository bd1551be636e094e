"""Short runs in one process or in many."""

from pathlib import Path

import torch

from cluster.distributed import Distributed
from cluster.experiment import Experiment, Spaces
from cluster.world import Local
from learners import checkpoint
from replay.archive import Codec
from replay.opening import Places, log_of, next_start, prepare_restart


def world_of(
    experiment: Experiment, folder: Path, *, resume: Path | None = None, rows: Codec = "none"
) -> Local | Distributed:
    experiment = experiment.checked()
    spaces = Spaces.of(experiment.environment)
    segments = folder / "segments"
    segments.mkdir(exist_ok=True, parents=True)
    kept = folder / "replay"
    given = log_of(Path(experiment.store)) if experiment.store else None
    places = Places(live=segments, kept=kept, start=next_start(kept), rows=rows, given=given)
    if experiment.topology.local:
        return Local(experiment, spaces, places=places, resume=resume)
    return Distributed(experiment, spaces, places=places, logs=folder / "logs", resume=resume)


def weights_after(experiment: Experiment, folder: Path, advances: int, *, resume: Path | None = None) -> dict:
    """All tensors of a checkpoint taken after so many learner steps; the segments' folder must be empty then."""
    with world_of(experiment, folder, resume=resume) as world:
        for _ in range(advances):
            world.advance()
        world.save(folder / "checkpoint")
    assert not list((folder / "segments").iterdir())
    return checkpoint.load(folder / "checkpoint")[0]


def continued(experiment: Experiment, folder: Path, advances: int, *, rows: Codec = "none") -> dict[str, torch.Tensor]:
    """All tensors after so many more learner steps from the checkpoint in the folder."""
    version = checkpoint.values(folder / "checkpoint")["version"]
    world = world_of(experiment, folder, resume=folder / "checkpoint", rows=rows)
    prepare_restart(
        world.experiment.tables, world.places, shards=experiment.topology.shards, seed=experiment.seed, version=version
    )
    with world:
        for _ in range(advances):
            world.advance()
        world.save(folder / "checkpoint")
    return checkpoint.load(folder / "checkpoint")[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
