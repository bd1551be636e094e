"""Runs that are stopped and resumed go on with the same episodes: their weights are those of a run left alone."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.actor import Report
from actors.environments import Environment, EnvironmentFailed
from cluster import checkpoints
from cluster.experiment import Experiment, Topology
from cluster.snapshots import Snapshots
from recipes.curl_ppo import curl_ppo
from recipes.ppo import ppo
from recipes.recurrent_ppo import recurrent_ppo
from tests.cluster.worlds import continued, same, weights_after, world_of

SMALL: dict[str, Any] = {
    "rows": 16,
    "epochs": 2,
    "minibatches": 2,
    "topology": Topology(actors=2, learners=1, local=True),
}
SMALL_ENVS = SMALL | {"envs": 4}
NO_VELOCITY = "actors.envs:CartPoleNoVelocity-v0"


@pytest.mark.parametrize(
    "experiment",
    [
        ppo(**SMALL),
        ppo("Acrobot-v1", **SMALL),
        ppo("Pendulum-v1", normalise=True, **SMALL),
        recurrent_ppo(NO_VELOCITY, **SMALL),
        curl_ppo("actors.envs:JitterCode-v0", encoder="small", **SMALL_ENVS),
        replace(ppo(**SMALL), topology=Topology(actors=2, learners=1, shards=2, local=True)),
    ],
    ids=["own vector class", "single environments", "scaled rewards", "recurrent", "frames", "two shards"],
)
def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not(experiment: Experiment, tmp_path: Path) -> None:
    whole = weights_after(experiment, tmp_path / "whole", 5)
    weights_after(experiment, tmp_path / "parts", 2)
    assert not same(continued(experiment, tmp_path / "parts", 1), whole)
    assert same(continued(experiment, tmp_path / "parts", 2), whole), "after a second stop too"


def test_episodes_go_on_with_their_numbers_and_returns(tmp_path: Path) -> None:
    experiment = ppo(**SMALL)
    with world_of(experiment, tmp_path / "whole") as world:
        whole = [world.advance().reports for _ in range(4)]
    weights_after(experiment, tmp_path / "parts", 2)
    with world_of(experiment, tmp_path / "parts", resume=tmp_path / "parts" / "checkpoint") as world:
        parts = [world.advance().reports for _ in range(2)]
    told = [
        [(report.block, report.steps, report.episodes) for advance in part for report in advance]
        for part in (whole[2:], parts)
    ]
    assert told[0] == told[1] and any(episodes for _, _, episodes in told[0])


@pytest.mark.parametrize(
    ("experiment", "why"),
    [
        (ppo("tests.cluster.faulty:Rebuilt-v0", **SMALL), "Rebuilt is pickled without its state"),
        (ppo("tests.cluster.faulty:Faulty-v0", **SMALL), "their state cannot be pickled"),
        (recurrent_ppo(NO_VELOCITY, burn_in=4, **SMALL), 'windows of the table "fresh" begin with rows from before'),
    ],
)
def test_where_no_state_can_be_kept_new_episodes_begin_and_it_is_said_once(
    experiment: Experiment, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_after(experiment, tmp_path, 3)
    said = capsys.readouterr().out
    assert said.count(why) == 1 and "after a death or a resumption its environments begin new episodes" in said
    assert checkpoints.snapshots(tmp_path / "checkpoint") == {}
    with world_of(experiment, tmp_path, resume=tmp_path / "checkpoint") as world:
        assert world.advance().version == 4


def test_a_snapshot_that_cannot_be_read_or_is_of_others_begins_new_episodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = ppo(**SMALL)
    weights_after(experiment, tmp_path, 2)
    (tmp_path / "checkpoint" / "actor-1.pickle").write_bytes(pickle.dumps(Report)[:-1])
    wider = ppo(envs=16, **SMALL)
    for resumed, why in ((experiment, "actor-1: the state that was kept cannot be read"), (wider, "is of streams")):
        with world_of(resumed, tmp_path, resume=tmp_path / "checkpoint") as world:
            assert world.advance().version == 3
        said = capsys.readouterr().out
        assert why in said and "its environments began new episodes" in said


def test_an_environment_that_raised_is_not_put_back_where_it_would_raise_again(tmp_path: Path) -> None:
    environment = Environment(
        "tests.actors.counting:Counting-v0", {"fault": "raise", "fault_seed": -1, "fault_step": 40}
    )
    experiment = replace(ppo(**SMALL), environment=environment)
    with world_of(experiment, tmp_path) as world:
        with pytest.raises(EnvironmentFailed, match="actor-0"):
            for _ in range(4):
                world.advance()
        assert world.rescue(tmp_path / "checkpoint")
    assert set(checkpoints.snapshots(tmp_path / "checkpoint")) == {1}


def test_an_actor_s_place_is_taken_with_one_snapshot_once() -> None:
    """What dies twice in the same block may die of the state that it was given."""
    snapshots = Snapshots({0: b"a"}, 7, print)
    snapshots.add(0, Report("actor-0", 7, 7, 0, [], {}, b"b"))
    snapshots.add(1, Report("actor-1", 7, 7, 0, [], {}, b"c"))
    assert snapshots.at(7) == {0: b"a"} and snapshots.at(8) == {0: b"b", 1: b"c"}
    assert snapshots.heirs(0, 8) == b"b" and snapshots.heirs(0, 8) is None and snapshots.heirs(1, 9) is None
    assert snapshots.at(8) == {0: b"b", 1: b"c"}, "a checkpoint has it all the same"
    snapshots.spoil(0)
    snapshots.forget(8)
    assert snapshots.at(7) == {} and snapshots.at(8) == {1: b"c"}
    snapshots.clear()
    assert snapshots.at(8) == {}


def test_the_newest_snapshot_of_an_actor_stays_where_learners_are_ahead_of_it() -> None:
    snapshots = Snapshots({}, 0, print)
    for block in (0, 1):
        snapshots.add(0, Report("actor-0", block, 0, 0, [], {}, b"%d" % block))
    snapshots.forget(50)
    assert snapshots.heirs(0, 2) == b"1" and snapshots.at(1) == {}


def test_a_block_that_never_reached_the_shard_leaves_no_snapshot() -> None:
    """The heir begins before it; who takes the heir's place must not go on after it."""
    snapshots = Snapshots({}, 0, print)
    for block in (0, 1):
        snapshots.add(0, Report("actor-0", block, 0, 0, [], {}, b"%d" % block))
    assert snapshots.heirs(0, 1) == b"0"
    assert snapshots.heirs(0, 2) is None


def test_a_checkpoint_without_the_state_of_all_actors_is_told_of() -> None:
    said: list[str] = []
    assert Snapshots({}, 0, said.append).first(1) == [None] and not said, "a new run"
    assert Snapshots({0: b"a", 1: b"b"}, 7, said.append).first(1) == [b"a"] and not said
    assert Snapshots({1: b"b"}, 7, said.append).first(2) == [None, b"b"]
    assert said == ["the checkpoint has the state of 1 of 2 actors: the others begin new episodes"]
