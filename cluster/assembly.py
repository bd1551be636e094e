"""Putting an experiment's parts together: the same ordinary objects, whether one process holds them or many."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.actor import STAGES, Actor, WeightReader
from cluster.experiment import Experiment, ExperimentError, Spaces
from learners.group import Group
from learners.last_versions import LastVersions
from learners.learner import Learner, WeightPublisher
from learners.upload import Upload
from replay.messages import Commit
from replay.opening import Places
from replay.remote import Sender, Trajectory
from replay.sampler import FarShard, Prefetch, Sampler, ShardLike
from replay.stopwatch import Stopwatch
from replay.table import watched
from replay.writer import Writer

SEGMENT_BLOCKS, SEGMENT_BYTES = 8, 4 * 2**20
"""Blocks of every stream in one segment, at least, and bytes: few enough that memory is given back soon, many enough
that files are rare."""


def rows_per_segment(experiment: Experiment, spaces: Spaces) -> int:
    """Rows of each stream in a segment."""
    streams = experiment.envs // experiment.topology.actors
    small = SEGMENT_BYTES // (spaces.schema(experiment).row_bytes * streams)
    return max(SEGMENT_BLOCKS * experiment.rows, small)


def streams_of(experiment: Experiment, index: int) -> range:
    """The streams that an actor writes."""
    count = experiment.envs // experiment.topology.actors
    return range(index * count, (index + 1) * count)


def shard_of(experiment: Experiment, index: int) -> int:
    """The shard that an actor writes to; it follows from the streams, which stay there whoever writes them."""
    return streams_of(experiment, index)[0] * experiment.topology.shards // experiment.envs


def writer_name(index: int, places: Places, life: int) -> str:
    """Under which an actor writes: no two processes ever share one."""
    return f"actor-{index}.{places.start}" + (f"-{life}" if life else "")


def make_actor(
    experiment: Experiment,
    spaces: Spaces,
    index: int,
    *,
    weights: WeightReader,
    places: Places,
    commit: Callable[[Commit], object],
    send: Callable[[Trajectory], object] | None = None,
    start_block: int = 0,
    life: int = 0,
    snapshot: bytes | None = None,
    segment_rows: int | None = None,
) -> Actor:
    """One actor with its environments, policy and writer.

    Args:
        experiment: checked.
        spaces: of its environment.
        index: which actor; decides its streams, seeds and random numbers, together with `start_block`.
        weights: where it reads weights.
        places: of the store's files.
        commit: takes note of the rows that it wrote.
        send: takes the rows themselves, where the shard is on another machine; None: it is on this one.
        start_block: its first one: the version at which a resumed run continues, or where the actor before it died.
        life: counts the actors before it in this place.
        snapshot: of an actor in this place before the block, to go on from; None: begin new episodes.
        segment_rows: of each stream in a segment; None: as many as suit the number of actors.
    """
    count = experiment.envs // experiment.topology.actors
    name = f"actor-{index}"
    environments = experiment.environment.make(count)
    if not environments.in_step and experiment.topology.max_version_lag > 0:
        environments.close()
        raise ExperimentError(
            f"{experiment.environment.id} resets itself in the step that ends an episode, so its streams grow "
            "unevenly and old rows would pile up: use --topology.max-version-lag 0"
        )
    same: dict[str, Any] = {
        "streams": streams_of(experiment, index),
        "rows_per_segment": segment_rows or rows_per_segment(experiment, spaces),
    }
    schema, incarnation, watch = spaces.schema(experiment), writer_name(index, places, life), Stopwatch(STAGES)
    commit = watch.around(commit, stage="room", before="write")
    writer = (
        Writer(incarnation, schema, folder=places.live, commit=commit, watch=watched(experiment.tables), **same)
        if send is None
        else Sender(incarnation, schema, send=watch.around(send, stage="room", before="write"), **same)
    )
    return Actor(
        spaces.policy(experiment),
        environments,
        writer,
        weights,
        name=name,
        seeds=experiment.seeds(index, start_block),
        rng=np.random.default_rng(np.random.SeedSequence(experiment.seed, spawn_key=(1, index, start_block))),
        rows=experiment.rows,
        max_version_lag=experiment.topology.max_version_lag,
        gamma=experiment.gamma,
        start_block=start_block,
        snapshot=snapshot,
        unkept=unkept(experiment),
        watch=watch,
    )


def unkept(experiment: Experiment) -> str:
    """Why an actor may not go on with the episodes of another one, whatever its environments; empty: it may."""
    # Windows do not reach over to another writer's rows: the learner would see other frames than the policy saw.
    leads = [name for name, table in experiment.tables.items() if table.lead]
    return f'windows of the table "{leads[0]}" begin with rows from before their block' if leads else ""


def make_learner(
    experiment: Experiment,
    spaces: Spaces,
    group: Group,
    *,
    shards: Sequence[ShardLike | FarShard],
    publish: WeightPublisher,
    device: torch.device,
    failures: Path | None = None,
    keep: LastVersions | None = None,
) -> Learner:
    """One rank of the learners, its model drawn from the run's seed, its random numbers from the seed and its rank.

    It keeps its last states in `keep`, from which a replacement goes on; None: in nothing.
    """
    torch.manual_seed(experiment.seed)
    model = spaces.model(experiment, learning=True)
    torch.manual_seed(int(np.random.SeedSequence(experiment.seed, spawn_key=(2, group.rank)).generate_state(1)[0]))
    # At lag 0 the next batch does not exist before the learner has published: there is nothing to fetch.
    ahead = (experiment.topology.max_version_lag > 0 or bool(experiment.store)) and not experiment.topology.local
    sampler = Sampler(
        spaces.schema(experiment),
        experiment.tables,
        shards,
        rank=group.rank,
        ranks=group.size,
        allocate=pinned if device.type == "cuda" else np.empty,
        buffers=2 if ahead else 1,
    )
    return Learner(
        model,
        experiment.updates,
        tables=experiment.tables,
        read=Prefetch(sampler, then=Upload(device) if device.type == "cuda" else None) if ahead else sampler,
        publish=publish,
        total_steps=experiment.steps,
        group=group,
        device=device,
        failures=failures,
        keep=keep,
    )


def pinned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array in page-locked memory, from which a GPU copies while the processor goes on."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True).numpy()
