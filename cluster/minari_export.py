"""Export to Minari, the Farama Foundation's collection of offline datasets: rows become its episodes.

Minari keeps what Gymnasium returns and no more: what a policy recorded beside its actions stays behind.
"""

import importlib
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa

from actors.environments import Environment
from actors.spaces import columns_of
from cluster.minari_import import joined
from learners.extras import needed
from replay.exchange import ExchangeError, pieces_of
from replay.pieces import Piece, by_stream
from replay.schema import Column

BUFFER_BYTES = 64 << 20
"""At least so many bytes of whole episodes are handed to Minari at once."""

Episode = dict[str, np.ndarray]
"""An episode's rows as columns; the last row is there for its observation."""


def export_minari(batches: Iterable[pa.RecordBatch], dataset_id: str, environment: Environment) -> int:
    """Make a Minari dataset of a store's rows, frames without loss; how many episodes it has.

    An episode that the end of the recording cut counts as truncated: its last row's observation is the final one.

    Args:
        batches: with the columns writer, stream, row and a schema's.
        dataset_id: e.g. "cartpole/mine-v0"; where that is, Minari's MINARI_DATASETS_PATH says.
        environment: that the rows are of; its spaces go with them.

    Raises:
        ExchangeError: Minari has such a dataset already, or the rows are of another environment.
        MissingExtra: Minari is not installed.
    """
    minari = needed("minari", "Minari's datasets are made by its package", "minari")
    target = _Target.of(environment)
    folder = _new_folder(dataset_id)
    count, dataset = 0, None
    try:
        for episodes in _together(_episodes(batches, target)):
            buffers = [_buffer(minari, episode, target) for episode in episodes]
            if dataset is None:
                dataset = _created(minari, dataset_id, buffers, target)
            else:
                dataset.update_dataset_from_buffer(buffers)
            count += len(buffers)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if dataset is None:
        raise ExchangeError("there are no episodes to export")
    return count


@dataclass(frozen=True)
class _Target:
    """What a dataset is told of its environment."""

    observation: gym.Space
    action: gym.Space
    columns: dict[str, Column]
    name: str
    single: gym.Env | None

    @classmethod
    def of(cls, environment: Environment) -> "_Target":
        made = environment.make(1)
        made.close()
        observation, action = made.observation_space, made.action_space
        columns = {**columns_of(observation, "observation"), **columns_of(action, "action")}
        single = gym.make(environment.id.rpartition(":")[2], **environment.kwargs)
        single.close()
        # What Gymnasium makes of the id alone is not always what was recorded: Atari's frames are preprocessed.
        same = single.observation_space == observation and single.action_space == action
        return cls(observation, action, columns, environment.id, single if same and _can_be_told(single) else None)

    def check(self, piece: Piece) -> None:
        """Refuse rows of another environment."""
        for name, column in self.columns.items():
            values = piece.columns.get(name)
            if values is None or values.shape[1:] != column.shape:
                got = "no such column" if values is None else f"{values.dtype} {values.shape[1:]}"
                raise ExchangeError(f'{piece.source}: column "{name}": {self.name} has {column}, the store has {got}')


def _can_be_told(environment: gym.Env) -> bool:
    """Whether others can make it by its description."""
    try:
        return environment.spec is not None and bool(environment.spec.to_json())
    except (TypeError, ValueError):
        return False


def _episodes(batches: Iterable[pa.RecordBatch], target: _Target) -> Iterator[Episode]:
    """All episodes that have an action, each as columns; those cut by the recording's end come last."""
    names = [*target.columns, "reward", "terminated", "truncated", "mask", "episode"]
    begun: dict[tuple[str, int], Episode] = {}
    for piece in pieces_of(batches, "the store"):
        target.check(piece)
        for stream, rows in by_stream(piece):
            columns = {name: piece.columns[name][rows] for name in names}
            if stream in begun:
                columns = joined([begun[stream], columns])
            cuts = (np.flatnonzero(np.diff(columns["episode"])) + 1).tolist()
            *whole, last = [_part(columns, *ends) for ends in zip([0, *cuts], [*cuts, None], strict=True)]
            begun[stream] = last
            yield from (episode for episode in whole if len(episode["mask"]) > 1)
    yield from (episode for episode in begun.values() if len(episode["mask"]) > 1)


def _part(columns: Episode, start: int, end: int | None) -> Episode:
    return {name: values[start:end] for name, values in columns.items()}


def _together(episodes: Iterator[Episode]) -> Iterator[list[Episode]]:
    held: list[Episode] = []
    size = 0
    for episode in episodes:
        held.append(episode)
        size += sum(values.nbytes for values in episode.values())
        if size >= BUFFER_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _buffer(minari: Any, episode: Episode, target: _Target) -> Any:
    """An episode in Minari's form."""
    truncations = episode["truncated"][:-1].astype(np.bool_)
    truncations[-1] |= not episode["terminated"][-2]
    return minari.data_collector.EpisodeBuffer(
        observations=_value(target.observation, episode, "observation"),
        actions=_value(target.action, _part(episode, 0, -1), "action"),
        rewards=episode["reward"][:-1],
        terminations=episode["terminated"][:-1].astype(np.bool_),
        truncations=truncations,
    )


def _value(space: gym.Space, columns: Episode, name: str) -> Any:
    """Columns as a batch of values of a space; what `actors.spaces.split` takes apart."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _value(inner, columns, f"{name}.{key}") for key, inner in space.items()}
    return columns[name].astype(space.dtype, copy=False)


def _new_folder(dataset_id: str) -> Path:
    """Where Minari will put the dataset."""
    folder = Path(importlib.import_module("minari.storage.datasets_root_dir").get_dataset_path(dataset_id))
    if folder.exists():
        raise ExchangeError(f"Minari has a dataset {dataset_id} already, in {folder}: choose another name or version")
    return folder


def _created(minari: Any, dataset_id: str, buffers: list[Any], target: _Target) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it wishes for an author, a description and so on
        try:
            return minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=target.single,
                observation_space=target.observation,
                action_space=target.action,
                jpeg_encoding=False,
            )
        except (ImportError, ValueError) as error:
            raise ExchangeError(f"Minari takes no dataset {dataset_id} ({error})") from error
