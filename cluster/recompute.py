"""A learner step of the past, made again from the rows that it drew: `contrail replay RUN --step N`."""

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from ray import cloudpickle

from cluster import checkpoints
from cluster.assembly import make_learner
from cluster.experiment import Experiment, ExperimentError, Spaces
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from learners.group import join, leave
from learners.learner import Learner
from replay.logged import LoggedShard
from replay.opening import log_of
from replay.store import Store

CRC = "facts/weights_crc"


@dataclass(frozen=True)
class Again:
    """A step that was made again.

    Attributes:
        step: which.
        crc: checksum of the model after it.
        recorded: the one that the run noted then; None: it noted none.
    """

    step: int
    crc: int
    recorded: int | None


class Nowhere:
    """Where the weights of the past go."""

    def publish(self, version: int, weights: dict[str, np.ndarray]) -> None:
        """Nobody acts on them."""


def recompute(
    experiment: Experiment, spaces: Spaces, folder: RunFolder, step: int, *, told: Callable[[Again], None]
) -> None:
    """Make the steps from the nearest checkpoint up to one again, on the CPU, with as many learners as then.

    Args:
        experiment: of the run.
        spaces: of its environment.
        folder: of the run, which keeps its rows.
        step: the last step to make; step 0 made version 1.
        told: hears of every step that was made.

    Raises:
        ExperimentError: the run has not made the step.
        NotLogged: a draw or its rows are not kept.
    """
    recorded = _recorded(folder)
    if step not in recorded:
        last = max(recorded, default=-1)
        raise ExperimentError(f"step {step} was not made in {folder.path}: wanted 0 to {last}")
    start, version = _checkpoint_before(folder, step)
    ranks = experiment.topology.learners
    with tempfile.TemporaryDirectory() as meeting:
        address = f"file://{meeting}/ranks"
        context = multiprocessing.get_context("spawn")
        receive, send = context.Pipe(duplex=False)
        # By value: the recipe may be a user's own file, which a new process cannot import.
        what = cloudpickle.dumps((experiment, spaces, folder.path.resolve(), start, address))
        others = [context.Process(target=_rank, args=(rank, what, step, send)) for rank in range(ranks)]
        for process in others:
            process.start()
        send.close()
        try:
            for number in range(version, step + 1):
                told(Again(number, _answer(receive), recorded.get(number)))
        finally:
            for process in others:
                process.join(timeout=10)
                process.kill()


def _recorded(folder: RunFolder) -> dict[int, int | None]:
    """By step, the checksum that the run noted after it."""
    return {
        int(row["train/version"]) - 1: int(row[CRC]) if CRC in row else None
        for row in read_metrics(folder.path)
        if "train/version" in row
    }


def _checkpoint_before(folder: RunFolder, step: int) -> tuple[Path | None, int]:
    """The newest checkpoint that the step follows, and its version; None: the beginning."""
    known = [(checkpoints.version(path), path) for path in folder.checkpoints()]
    version, path = max((pair for pair in known if pair[0] <= step), default=(0, None), key=lambda pair: pair[0])
    return path, version


def _answer(receive: Connection) -> int:
    answer = receive.recv()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _rank(rank: int, what: bytes, step: int, send: Connection) -> None:
    """One learner, in a process of its own; rank 0 answers with checksums, any of them with an error."""
    try:
        learner = _learner(rank, *pickle.loads(what))
        while learner.version <= step:
            learner.step()
            if rank == 0:
                send.send(learner.checksum())
        learner.close()
        leave()
    except Exception as error:  # noqa: BLE001 - it is raised again where somebody can tell it
        send.send(error)


def _learner(rank: int, experiment: Experiment, spaces: Spaces, run: Path, start: Path | None, address: str) -> Learner:
    torch.set_num_threads(experiment.topology.threads)
    device = torch.device("cpu")
    store = Store.open(run)
    # Not the live segments: while a run goes on, its writers use them again.
    draws, folders = store.draws(), [run / "replay" / "log"]
    if experiment.store:
        folders.append(log_of(Path(experiment.store)))
    shards = [LoggedShard(draws.filter(pc.field("shard") == i), folders) for i in range(experiment.topology.shards)]
    group = join(address, rank, experiment.topology.learners, device=device)
    learner = make_learner(experiment, spaces, group, shards=shards, publish=Nowhere(), device=device)
    if start is not None:
        checkpoints.restore(learner, start)
    return learner
