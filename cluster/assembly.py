"""Putting an experiment's parts together: the same ordinary objects, whether one process holds them or many."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from actors.actor import Actor, WeightReader
from cluster.experiment import Experiment, ExperimentError, Spaces
from learners.group import Group
from learners.learner import Learner, WeightPublisher
from replay.messages import Commit
from replay.sampler import Sampler, ShardLike
from replay.shard import Shard
from replay.writer import Writer

SEGMENT_BLOCKS = 8
"""Blocks of every stream in one segment: few enough that memory is given back soon, many enough that files are rare."""


def make_shard(experiment: Experiment, index: int) -> Shard:
    """One shard of the store, an index of its share of every table."""
    return Shard(experiment.tables, shards=experiment.topology.shards, index=index, seed=experiment.seed)


def make_actor(
    experiment: Experiment,
    spaces: Spaces,
    index: int,
    *,
    weights: WeightReader,
    commit: Callable[[Commit], None],
    folder: Path,
    start_block: int = 0,
) -> Actor:
    """One actor with its environments, policy and writer.

    Args:
        experiment: checked.
        spaces: of its environment.
        index: which actor; decides its streams, seeds and random numbers, together with `start_block`.
        weights: where it reads weights.
        commit: where its writer sends commits.
        folder: where its segments go.
        start_block: the version at which a resumed run continues.
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
    writer = Writer(
        f"{name}.{start_block}",
        spaces.schema(experiment),
        streams=range(index * count, (index + 1) * count),
        folder=folder,
        rows_per_segment=SEGMENT_BLOCKS * experiment.rows,
        commit=commit,
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
    )


def make_learner(
    experiment: Experiment,
    spaces: Spaces,
    group: Group,
    *,
    shards: Sequence[ShardLike],
    publish: WeightPublisher,
    device: torch.device,
) -> Learner:
    """One rank of the learners, its model drawn from the run's seed, its random numbers from the seed and its rank."""
    torch.manual_seed(experiment.seed)
    model = spaces.model(experiment, learning=True)
    torch.manual_seed(int(np.random.SeedSequence(experiment.seed, spawn_key=(2, group.rank)).generate_state(1)[0]))
    read = Sampler(
        spaces.schema(experiment),
        experiment.tables,
        shards,
        rank=group.rank,
        ranks=group.size,
        allocate=pinned if device.type == "cuda" else np.empty,
    )
    return Learner(
        model,
        experiment.updates,
        tables=experiment.tables,
        read=read,
        publish=publish,
        total_steps=experiment.steps,
        group=group,
        device=device,
    )


def pinned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array in page-locked memory, from which a GPU copies while the processor goes on."""
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True).numpy()
