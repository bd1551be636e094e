import gymnasium as gym
import numpy as np
import pytest
import torch

from actors.environments import Environment
from actors.policy import RandomPolicy
from cluster.probing import Rows, collect, raw, representations, reward_to_go, shifted, stream_batch, variables
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp, SmallConv
from learners.policy import ModelPolicy
from replay.schema import Column

COUNTING = Environment("tests.cluster.told:Told-v0")


def told_rows(*, streams: int = 3, length: int = 30, pictured=()) -> Rows:
    return collect(
        RandomPolicy(gym.spaces.Discrete(3)), COUNTING, streams=streams, length=length, seed=1, pictured=pictured
    )


def test_rows_and_what_the_environment_says_of_them_belong_together() -> None:
    rows = told_rows()
    episode, step = rows.observation["observation"][..., 1], rows.observation["observation"][..., 2]
    assert rows.step.shape == (3, 30) and rows.decided.sum() < 90
    np.testing.assert_array_equal(rows.step, step)
    for stream in range(3):
        assert len(np.unique(rows.episode[stream])) == len(np.unique(episode[stream]))
    np.testing.assert_array_equal(rows.info["info.twice"], 2 * step)
    np.testing.assert_array_equal(rows.info["info.pair[1]"], episode)
    # It tells its secret only on odd steps; a name and what is not numbers are no variables.
    np.testing.assert_array_equal(np.isfinite(rows.info["info.odd"]), step % 2 == 1)
    assert set(rows.info) == {"info.twice", "info.pair[0]", "info.pair[1]", "info.odd", "info.same"}


def test_variables_are_known_where_something_was_decided() -> None:
    rows = told_rows()
    found, left = variables(rows, 0.5)
    assert list(found) == ["info.twice", "info.pair[1]", "info.odd", "reward_to_go", "step", "action"]
    assert left == {"info.pair[0]": "it never changes within an environment", "info.same": "it is always 4"}
    assert not found["reward_to_go"].classes and found["action"].classes
    assert np.isnan(found["step"].values[~rows.decided]).all()
    np.testing.assert_array_equal(found["step"].values[rows.decided], rows.step[rows.decided])


def test_reward_to_go_is_its_definition_and_unknown_where_the_end_was_not_seen() -> None:
    rows = told_rows()
    value = reward_to_go(rows, 0.5)
    for stream in range(3):
        for t in range(30):
            later, factor, total, over = t, 1.0, 0.0, False
            while rows.decided[stream, t] and later < 30 and not over:
                total, factor, over = total + factor * rows.reward[stream, later], factor / 2, rows.ended[stream, later]
                later += 1
            assert value[stream, t] == pytest.approx(total) if over else np.isnan(value[stream, t])
    assert np.isfinite(value).any() and np.isnan(value[rows.decided]).any()


def test_pictures_are_of_the_rows_that_were_asked_for() -> None:
    rows = told_rows(streams=2, length=6, pictured={1, 4})
    assert sorted(rows.pictures) == [(0, 1), (0, 4), (1, 1), (1, 4)]
    for (stream, t), picture in rows.pictures.items():
        assert picture.shape == (4, 4, 3) and (picture == rows.step[stream, t]).all()


def image_rows(model_spec: ActorCritic, length: int = 20) -> tuple[ModelPolicy, Rows]:
    environment = Environment("actors.envs:StaticRecall-v0")
    torch.manual_seed(0)
    model = model_spec.build({"observation": Column("uint8", (32, 32))}, gym.spaces.Discrete(8))
    policy = ModelPolicy(model)
    return policy, collect(policy, environment, streams=3, length=length, seed=0)


@pytest.mark.parametrize("stack", [1, 3])
def test_a_representation_is_what_the_policy_had_as_it_acted(stack: int) -> None:
    policy, rows = image_rows(ActorCritic(SmallConv(8), core=Gru(4), stack=stack))
    seen = representations(policy.model, rows)
    assert {name: value.shape for name, value in seen.items()} == {"features": (3, 20, 8), "context": (3, 20, 4)}
    state, rng = policy.initial_state(3), np.random.default_rng(0)
    for t in range(20):
        observation = {"observation": rows.observation["observation"][:, t]}
        first = rows.step[:, t] == 0
        _, state = policy.act(observation, state, first, rng)
        np.testing.assert_allclose(seen["context"][:, t], state.core, atol=1e-5)


def test_a_raw_observation_is_averaged_until_it_is_small() -> None:
    policy, rows = image_rows(ActorCritic(SmallConv(8), stack=4), length=3)
    seen, side = raw(policy.model, rows)
    assert (seen.shape, side) == ((3, 3, 1024), 2)
    stacked = stream_batch(policy.model, rows, 1)["observation"][0, 2].float()
    np.testing.assert_allclose(seen[1, 2].view(4, 16, 16)[3, 5, 7], stacked[3, 10:12, 14:16].mean(), rtol=1e-6)
    vectors = ActorCritic(Mlp((4,))).build({"observation": Column("float32", (3,))}, gym.spaces.Discrete(3))
    told = told_rows(length=4)
    seen, side = raw(vectors, told)
    assert side == 1 and np.array_equal(seen, told.observation["observation"])


def test_only_images_are_moved_and_rows_stay_together() -> None:
    policy, rows = image_rows(ActorCritic(SmallConv(8)), length=6)
    places = np.array([(2, 1), (0, 3), (2, 5)])
    first, second = shifted(policy.model, rows, places, lambda frames: frames)
    assert torch.equal(first, second)
    seen = representations(policy.model, rows)["features"]
    torch.testing.assert_close(first, torch.stack([seen[0, 3], seen[2, 1], seen[2, 5]]))
    first, second = shifted(policy.model, rows, places, lambda frames: frames.flip(-1))
    assert not torch.allclose(first, second)
