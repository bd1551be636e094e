"""Import from Minari, the Farama Foundation's collection of offline datasets: its episodes become rows.

An episode of n actions has n + 1 observations there and n + 1 rows here. Minari's infos stay behind.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.spaces import columns_of, split
from learners.extras import needed
from replay.exchange import Codec, ExchangeError, Imported, import_pieces
from replay.pieces import Piece

ROWS = 4096
"""At least so many rows of whole episodes are handed on at once."""


def import_minari(
    source: str, store: Path | str, *, download: bool = False, gamma: float = 0.99, codec: Codec = "none"
) -> Imported:
    """Make a store of a Minari dataset, one stream with an episode after the other.

    An episode that ends neither terminated nor truncated was cut, so its last action counts as truncated.

    Args:
        source: the dataset's id, or its folder.
        store: a folder that does not exist yet.
        download: fetch it if Minari does not have it yet.
        gamma: discount of the column `discounted_return`.
        codec: of the store's segments.

    Raises:
        ExchangeError: there is no such dataset, or an episode has not the form above.
        MissingExtra: Minari is not installed.
        SpaceError: its spaces have no columns.
    """
    dataset = _opened(source, download=download)
    return import_pieces(_pieces(dataset, f"Minari's {dataset.id}"), store, gamma=gamma, codec=codec)


def _opened(source: str, *, download: bool) -> Any:
    minari = needed("minari", "Minari's datasets are opened by its package", "minari")
    folders = [folder for folder in (Path(source), Path(source) / "data") if (folder / "metadata.json").is_file()]
    try:
        return minari.MinariDataset(folders[0]) if folders else minari.load_dataset(source, download=download)
    except FileNotFoundError as error:
        raise ExchangeError(f"Minari has no dataset {source}: --download fetches one that it knows") from error
    except (ImportError, ValueError) as error:
        raise ExchangeError(f"Minari cannot open {source} ({error})") from error


def _pieces(dataset: Any, source: str) -> Iterator[Piece]:
    """The rows of whole episodes, thousands at a time."""
    action = columns_of(dataset.action_space, "action")["action"]
    if action.dtype.startswith("float"):
        action = replace(action, dtype="float32")  # as policies compute it
    declared = {**columns_of(dataset.observation_space, "observation"), "action": action}
    held: list[dict[str, np.ndarray]] = []
    first = rows = 0
    for episode in dataset.iterate_episodes():
        if len(episode.rewards):
            held.append(_rows_of(episode, dataset, source))
            rows += len(episode.rewards) + 1
        if rows >= ROWS:
            yield Piece(joined(held), source, first, declared=declared)
            first, rows, held = first + rows, 0, []
    if held:
        yield Piece(joined(held), source, first, declared=declared)


def _rows_of(episode: Any, dataset: Any, source: str) -> dict[str, np.ndarray]:
    """An episode's rows, the last with its final observation and without a decision."""
    actions = len(episode.rewards)
    columns = split(dataset.observation_space, episode.observations)
    for name, values in columns.items():
        if len(values) != actions + 1:
            text = f"{source}, episode {episode.id}: {actions} actions and {len(values)} observations ({name})"
            raise ExchangeError(f"{text}: wanted one observation more than actions")
    truncated = np.asarray(episode.truncations).astype(np.uint8)
    truncated[-1] |= not episode.terminations[-1]
    decisions = {
        **split(dataset.action_space, episode.actions, "action"),
        "reward": np.asarray(episode.rewards, np.float32),
        "terminated": np.asarray(episode.terminations).astype(np.uint8),
        "truncated": truncated,
        "mask": np.ones(actions, np.uint8),
    }
    padded = {name: np.concatenate([values, np.zeros_like(values[:1])]) for name, values in decisions.items()}
    step = np.arange(actions + 1, dtype=np.int32)
    return {**columns, **padded, "step": step, "episode": np.full(actions + 1, episode.id, np.int64)}


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns, one part after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
