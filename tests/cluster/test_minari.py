"""Minari's episodes as rows and back: what Gymnasium returned is the same, frames to the last bit."""

import importlib.util
from pathlib import Path

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pytest

from actors.environments import Environment
from actors.spaces import SpaceError, columns_of
from cluster.minari_export import export_minari
from cluster.minari_import import import_minari
from learners.extras import MissingExtra
from replay.columns import array_of
from replay.exchange import ExchangeError
from replay.schema import Column, Schema
from tests.replay.test_exchange import Rows, rows_of, stored

needs_minari = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("minari", "h5py", "PIL"))), reason="Minari is not installed"
)
FRAMES = gym.spaces.Dict(
    {
        "image": gym.spaces.Box(0, 255, (36, 40), np.uint8),
        "arm": gym.spaces.Dict({"angles": gym.spaces.Box(-1, 1, (2,), np.float64)}),
        "goal": gym.spaces.Discrete(3),
    }
)


class Arm(gym.Env):
    """Random frames and angles; every action is a pair."""

    observation_space = FRAMES
    action_space = gym.spaces.Box(-1, 1, (2,), np.float64)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.5, False, False, {}


gym.register("MinariArm-v0", entry_point="tests.cluster.test_minari:Arm", max_episode_steps=5)
gym.register("MinariCallable-v0", entry_point=Arm)


@pytest.fixture(autouse=True)
def minari_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def schema_of(environment: str) -> Schema:
    made = gym.make(environment)
    action = columns_of(made.action_space, "action")["action"]
    action = Column("float32", action.shape) if action.dtype == "float64" else action
    return Schema.of_rows(columns_of(made.observation_space, "observation"), action, {"value": Column("float32")})


def recorded(environment: str, lengths: list[list[int]], *, cut: int = 0) -> tuple[list[Rows], list[pa.RecordBatch]]:
    """Streams of rows as an actor would have recorded them, in batches of 7 rows."""
    schema = schema_of(environment)
    streams = [rows_of(number, each, schema, cut=cut) for number, each in enumerate(lengths)]
    for rows in streams:
        rows["action"] = np.where(np.isin(rows["mask"], 1), rows["action"].T, 0).T.astype(rows["action"].dtype)
        if not schema.columns["action"].shape:
            rows["action"] %= 2
        if "observation.goal" in rows:
            rows["observation.goal"] %= 3
    batches = []
    for start in range(0, max(len(rows["mask"]) for rows in streams), 7):
        for number, rows in enumerate(streams):
            part = {name: values[start : start + 7] for name, values in rows.items()}
            count = len(part["mask"])
            place = [pa.array(["actor"] * count, pa.string()), pa.array([number] * count, pa.int64())]
            place.append(pa.array(np.arange(start, start + count)))
            arrays = [
                array_of(column.arrow(), count, pa.py_buffer(np.ascontiguousarray(part[name])))
                for name, column in schema.columns.items()
            ]
            batches.append(pa.record_batch([*place, *arrays], names=["writer", "stream", "row", *schema.columns]))
    return streams, batches


KEPT = ("reward", "terminated", "truncated", "mask", "step", "action")


@needs_minari
@pytest.mark.parametrize("environment", ["CartPole-v1", "MinariArm-v0"])
def test_rows_to_episodes_to_rows(environment: str, tmp_path: Path) -> None:
    import minari

    streams, batches = recorded(environment, [[3, 8], [5, 1, 2]])
    assert export_minari(batches, "test/mine-v0", Environment(environment)) == 5
    dataset = minari.load_dataset("test/mine-v0")
    assert dataset.total_episodes == 5 and dataset.total_steps == 19
    made = gym.make(environment)
    assert dataset.observation_space == made.observation_space and dataset.action_space == made.action_space
    assert dataset.env_spec is not None and dataset.env_spec.id == environment
    imported = import_minari("test/mine-v0", tmp_path / "store")
    assert (imported.rows, imported.decisions, imported.streams) == (24, 19, 1)
    found, by_length = stored(tmp_path / "store")[0], episodes_of(streams)
    names = [name for name in found if name.split(".")[0] == "observation"]
    assert names == [name for name in schema_of(environment).columns if name.startswith("observation")]
    for episode in episodes_of([found]).values():
        wanted = by_length[len(episode["mask"])]
        for name in (*KEPT, *names):
            assert episode[name].dtype == wanted[name].dtype
            np.testing.assert_array_equal(episode[name], wanted[name], err_msg=name)


def episodes_of(streams: list[Rows]) -> dict[int, Rows]:
    """Episodes by their number of rows, all of which differ."""
    episodes = {}
    for rows in streams:
        for number in np.unique(rows["episode"]):
            episode = {name: values[rows["episode"] == number] for name, values in rows.items()}
            assert len(episode["mask"]) not in episodes
            episodes[len(episode["mask"])] = episode
    return episodes


@needs_minari
def test_minari_sees_what_gymnasium_returned() -> None:
    import minari

    streams, batches = recorded("CartPole-v1", [[4, 3]])
    export_minari(batches, "mine-v0", Environment("CartPole-v1"))
    first, second = minari.load_dataset("mine-v0").iterate_episodes()
    rows = streams[0]
    np.testing.assert_array_equal(first.observations, rows["observation"][:5])
    np.testing.assert_array_equal(first.actions, rows["action"][:4])
    np.testing.assert_array_equal(second.rewards, rows["reward"][5:8])
    assert first.terminations.tolist() == [False, False, False, True] and not first.truncations.any()
    assert second.truncations.tolist() == [False, False, True] and not second.terminations.any()


@needs_minari
def test_many_episodes_go_to_minari_in_several_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cluster.minari_export.BUFFER_BYTES", 400)
    monkeypatch.setattr("cluster.minari_import.ROWS", 8)
    streams, batches = recorded("CartPole-v1", [[4, 3, 6, 2, 9, 5]])
    assert export_minari(batches, "mine-v0", Environment("CartPole-v1")) == 6
    import_minari("mine-v0", tmp_path / "store")
    found = stored(tmp_path / "store")[0]
    for name in (*KEPT, "observation"):
        np.testing.assert_array_equal(found[name], streams[0][name], err_msg=name)


@needs_minari
def test_an_episode_that_was_cut_is_truncated(tmp_path: Path) -> None:
    streams, batches = recorded("CartPole-v1", [[3, 6]], cut=2)
    assert export_minari(batches, "mine-v0", Environment("CartPole-v1")) == 2
    import_minari("mine-v0", tmp_path / "store")
    found, wanted = stored(tmp_path / "store")[0], streams[0]
    np.testing.assert_array_equal(found["observation"], wanted["observation"])
    assert found["mask"].tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 0]
    assert found["truncated"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]


@needs_minari
def test_a_dataset_that_others_made(tmp_path: Path, minari_folder: Path) -> None:
    """Lists for arrays, an end that nobody marked, an episode without actions; found by its folder, too."""
    import minari
    from minari.data_collector import EpisodeBuffer

    spaces = {"observation_space": gym.spaces.Discrete(9), "action_space": gym.spaces.MultiBinary(2)}
    actions, ends = np.array([[0, 1], [1, 1], [1, 0]], np.int8), {"terminations": [0, 0], "truncations": [0, 0]}
    buffers = [
        EpisodeBuffer(observations=[1, 2, 3], actions=actions[:2], rewards=[1, 2], **ends),
        EpisodeBuffer(observations=[4, 5], actions=actions[2:], rewards=[3], terminations=[1], truncations=[0]),
    ]
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("others-v0", buffers, **spaces)
    for number, source in enumerate(["others-v0", minari_folder / "others-v0", minari_folder / "others-v0" / "data"]):
        imported = import_minari(str(source), tmp_path / f"store-{number}", gamma=0.5)
        found = stored(tmp_path / f"store-{number}")[0]
        assert imported.schema.columns["action"] == Column("uint8", (2,))
        assert found["observation"].tolist() == [1, 2, 3, 4, 5]
        assert found["action"].tolist() == [[0, 1], [1, 1], [0, 0], [1, 0], [0, 0]]
        assert found["terminated"].tolist() == [0, 0, 0, 1, 0]
        assert found["truncated"].tolist() == [0, 1, 0, 0, 0]
        assert found["mask"].tolist() == [1, 1, 0, 1, 0]
        assert found["discounted_return"].tolist() == [1, 2.5, 0, 3, 0]


@needs_minari
def test_an_environment_that_nobody_else_can_make_is_not_named() -> None:
    import minari

    _, batches = recorded("MinariCallable-v0", [[3]])
    export_minari(batches, "mine-v0", Environment("MinariCallable-v0"))
    dataset = minari.load_dataset("mine-v0")
    assert dataset.env_spec is None and dataset.observation_space == FRAMES


@needs_minari
def test_mistakes_are_told_in_a_sentence(tmp_path: Path, minari_folder: Path) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    with pytest.raises(ExchangeError, match="Minari has no dataset nowhere-v0: --download fetches one"):
        import_minari("nowhere-v0", tmp_path / "store")
    with pytest.raises(ExchangeError, match="Minari has no dataset no name"):
        import_minari("no name", tmp_path / "store")
    _, batches = recorded("CartPole-v1", [[3]])
    with pytest.raises(ExchangeError, match='column "observation": Pendulum-v1 has float32'):
        export_minari(batches, "mine-v0", Environment("Pendulum-v1"))
    with pytest.raises(ExchangeError, match="Minari takes no dataset no name"):
        export_minari(batches, "no name", Environment("CartPole-v1"))
    with pytest.raises(ExchangeError, match="no episodes"):
        export_minari([], "mine-v0", Environment("CartPole-v1"))
    assert not (minari_folder / "mine-v0").exists() and not (minari_folder / "no name").exists()
    export_minari(batches, "mine-v0", Environment("CartPole-v1"))
    with pytest.raises(ExchangeError, match="Minari has a dataset mine-v0 already"):
        export_minari(batches, "mine-v0", Environment("CartPole-v1"))
    short = EpisodeBuffer(observations=[1], actions=[0], rewards=[1], terminations=[1], truncations=[0])
    word = EpisodeBuffer(observations=["a", "b"], actions=[0], rewards=[1], terminations=[1], truncations=[0])
    with pytest.warns(UserWarning):
        two = gym.spaces.Discrete(2)
        minari.create_dataset_from_buffers("short-v0", [short], observation_space=two, action_space=two)
        minari.create_dataset_from_buffers("text-v0", [word], observation_space=gym.spaces.Text(3), action_space=two)
    with pytest.raises(ExchangeError, match=r"episode 0: 1 actions and 1 observations \(observation\): wanted one"):
        import_minari("short-v0", tmp_path / "store")
    with pytest.raises(SpaceError, match="has no column"):
        import_minari("text-v0", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_without_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    for call in (
        lambda: import_minari("mine-v0", tmp_path / "store"),
        lambda: export_minari([], "mine-v0", Environment("CartPole-v1")),
    ):
        with pytest.raises(MissingExtra, match=r'pip install "contrail\[minari\]"'):
            call()
