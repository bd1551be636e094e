"""The rows that an actor writes, against a slow single-environment reference, in all three autoreset modes."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from actors.actor import STAGES, Actor
from actors.environments import EnvironmentFailed, Environments
from tests.actors.counting import Counting, CountingDict
from tests.actors.fakes import CountingPolicy, InMemoryWeights, RowList

GAMMA = 0.9
SEEDS = [4, 2, 0]
STREAMS = [7, 8, 9]


def make_actor(
    mode: AutoresetMode, name: str = "Counting-v0", rows: int = 40, seeds: list[int] = SEEDS, **kwargs
) -> tuple[Actor, RowList]:
    envs = [lambda: gymnasium.make(name, disable_env_checker=True, **kwargs)] * len(SEEDS)
    environments = Environments(SyncVectorEnv(envs, autoreset_mode=mode), count=len(SEEDS))
    writer = RowList(STREAMS)
    actor = Actor(
        CountingPolicy(),
        environments,
        writer,
        InMemoryWeights(newest=3),
        name="actor-1",
        seeds=seeds,
        rng=np.random.default_rng(0),
        rows=rows,
        max_version_lag=None,
        gamma=GAMMA,
    )
    return actor, writer


def reference(env: Counting, seed: int, stream: int, count: int) -> list[dict]:
    """The first rows of a stream, one environment and one row at a time, straight from the definition of a row."""
    rows, episode = [], 0
    observation, _ = env.reset(seed=seed)
    while len(rows) < count:
        discounted, ended, step = 0.0, False, 0
        while not ended:
            place = observation["place"] if isinstance(observation, dict) else observation
            action = int(place.sum()) % 3
            successor, reward, terminated, truncated, _ = env.step(action)
            discounted = reward + GAMMA * discounted
            made = {"action": action, "log_prob": -1 - action, "reward": reward, "discounted_return": discounted}
            made |= {"terminated": terminated, "truncated": truncated, "mask": 1}
            made |= {"episode": stream * 2**32 + episode, "step": step}
            rows.append({"observation": observation, **made})
            observation, ended, step = successor, terminated or truncated, step + 1
        blank = dict.fromkeys(made, 0) | {"episode": stream * 2**32 + episode, "step": step}
        rows.append({"observation": observation, **blank})
        observation, _ = env.reset()
        episode += 1
    return rows[:count]


def assert_rows_equal(written: list[dict], wanted: list[dict]) -> None:
    for index, (row, want) in enumerate(zip(written, wanted, strict=True)):
        observation = want.pop("observation")
        if isinstance(observation, dict):
            observed = {
                "observation.place": observation["place"],
                "observation.camera.left": observation["camera"]["left"],
            }
        else:
            observed = {"observation": observation}
        for name, value in {**observed, **want, "policy_version": 3}.items():
            np.testing.assert_allclose(row[name], value, rtol=1e-5, err_msg=f"row {index}, {name}")


@pytest.mark.parametrize("name", ["Counting-v0", "CountingDict-v0"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rows_are_those_of_the_reference_in_every_autoreset_mode(mode, name):
    actor, writer = make_actor(mode, name)
    actor.collect()
    env = CountingDict() if name == "CountingDict-v0" else Counting()
    for slot, (seed, stream) in enumerate(zip(SEEDS, STREAMS, strict=True)):
        written = writer.rows[slot]
        assert len(written) >= 40
        assert_rows_equal(written, reference(env, seed, stream, len(written)))
    actor.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_policy_is_told_where_episodes_begin(mode):
    actor, writer = make_actor(mode)
    actor.collect()
    decided = [row for rows in writer.rows for row in rows if row["mask"]]
    assert decided
    for row in decided:
        assert row["age"] == row["step"]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_the_report_counts_decisions_and_true_returns(mode):
    actor, writer = make_actor(mode)
    report = actor.collect()
    rows = [row for stream in writer.rows for row in stream]
    assert report.steps == sum(int(row["mask"]) for row in rows)
    ended = [row for row in rows if row["terminated"] or row["truncated"]]
    assert len(report.episodes) == len(ended) > 10
    for episode in report.episodes:
        assert episode.finished
    by_number: dict[int, float] = {}
    for row in rows:
        by_number[int(row["episode"])] = by_number.get(int(row["episode"]), 0.0) + float(row["reward"])
    totals = sorted(by_number[int(row["episode"])] for row in ended)
    np.testing.assert_allclose(sorted(episode.total for episode in report.episodes), totals)
    assert set(report.seconds) == set(STAGES)
    assert {stage for stage, seconds in report.seconds.items() if not seconds} == {"room", "between"}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_block_ends_when_every_stream_has_grown_enough_and_leaves_the_next_row_open(mode):
    actor, writer = make_actor(mode, rows=5)
    for _ in range(4):
        actor.collect()
    sizes = np.array([[0] * len(SEEDS)] + [ends for _, ends, _ in writer.commits])
    grown = np.diff(sizes, axis=0)
    assert (grown.min(axis=1) >= 5).all()
    # The last vector step may add a final row too; where final rows are steps of their own, all streams keep pace.
    assert (grown.min(axis=1) <= (5 if mode is AutoresetMode.NEXT_STEP else 6)).all()
    assert (grown == 5).all() == (mode is AutoresetMode.NEXT_STEP)
    actor.collect()
    for version, ends, open_columns in writer.commits[:-1]:
        assert version == 3
        for slot, end in enumerate(ends):
            for name, column in open_columns.items():
                np.testing.assert_array_equal(column[slot], writer.rows[slot][end][name], err_msg=name)
    assert set(writer.commits[0][2]) == {"observation", "episode", "step"}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_final_rows_count_towards_a_block(mode):
    actor, writer = make_actor(mode, rows=12, seeds=[0, 0, 0])  # three equal streams: none waits for another
    actor.collect()
    for rows in writer.rows:
        assert 12 <= len(rows) <= 13
        assert [row["mask"] for row in rows].count(0) >= 3


def test_an_environment_failure_names_the_actor():
    actor, _ = make_actor(AutoresetMode.NEXT_STEP, fault="reward", fault_seed=2)
    with pytest.raises(EnvironmentFailed, match=r"^actor-1: environment 1 of 3 returned reward inf"):
        actor.collect()
