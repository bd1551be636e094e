"""Environments: ids, autoreset, seeds, what goes in and comes out, and how they fail."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from actors.environments import Environment, EnvironmentFailed, EnvironmentProblem, Environments, environment_seeds

COUNTING = "tests.actors.counting:Counting-v0"


def counting(count: int, **kwargs) -> Environments:
    return Environment(COUNTING, kwargs).make(count)


def actions(count: int) -> np.ndarray:
    return np.ones(count, dtype=np.int64)


def test_an_unknown_id_names_the_nearest_one():
    with pytest.raises(EnvironmentProblem, match='"CartPoel-v1" is not registered; did you mean "CartPole-v1"'):
        Environment("CartPoel-v1").make(1)


def test_a_missing_module_is_named():
    with pytest.raises(EnvironmentProblem, match='needs the module "no_such_module"'):
        Environment("no_such_module:Thing-v0").make(1)


@pytest.mark.parametrize("name", [COUNTING, "CartPole-v1"])
def test_refused_keyword_arguments_are_named(name):
    with pytest.raises(EnvironmentProblem, match=r"cannot be made with \{'colour': 1\}.*colour"):
        Environment(name, {"colour": 1}).make(2)


def test_stacked_frames_are_refused():
    with pytest.raises(EnvironmentProblem, match="lead"):
        Environment("ALE/Breakout-v5", {"stack_num": 4})


def test_a_missing_atari_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ale_py", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install contrail\[atari\]"):
        Environment("ALE/Breakout-v5").make(1)


def test_keyword_arguments_reach_the_environment():
    environments = Environment("CartPole-v1", {"sutton_barto_reward": True}).make(3)
    environments.reset([0, 1, 2])
    assert environments.step(actions(3)).reward.tolist() == [0, 0, 0]
    environments.close()


def test_cartpole_runs_by_its_own_vector_class_and_masks_the_step_after_an_end():
    environments = Environment("CartPole-v1").make(2)
    environments.reset([3, 4])
    steps = [environments.step(actions(2)) for _ in range(30)]
    ended = [step.terminated | step.truncated for step in steps]
    assert any(end.any() for end in ended)
    for before, after in zip(ended, steps[1:], strict=False):
        np.testing.assert_array_equal(after.decided, ~before)
        np.testing.assert_array_equal(after.first, before)
        np.testing.assert_array_equal(after.reward, (~before).astype(np.float32))
    environments.close()


def test_the_same_seeds_give_the_same_episodes_and_others_do_not():
    def observe(seeds: list[int]) -> np.ndarray:
        environments = Environment("Acrobot-v1").make(2)
        environments.reset(seeds)
        frames = np.stack([environments.step(actions(2)).observation["observation"] for _ in range(5)])
        environments.close()
        return frames

    np.testing.assert_array_equal(observe([1, 2]), observe([1, 2]))
    assert not np.array_equal(observe([1, 2])[:, 0], observe([1, 2])[:, 1])
    assert not np.array_equal(observe([1, 2])[:, 1], observe([1, 3])[:, 1])


def test_seeds_are_distinct_over_slots_actors_restarts_and_runs():
    drawn = [
        seed
        for run in range(3)
        for actor in range(5)
        for incarnation in range(2)
        for seed in environment_seeds(run, actor, 16, incarnation=incarnation)
    ]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < 2**31 for seed in drawn)
    assert environment_seeds(1, 2, 16) == environment_seeds(1, 2, 16)


def test_continuous_actions_are_clipped_on_the_way_in_only():
    environments = Environment("tests.actors.counting:Echo-v0").make(2)
    environments.reset([0, 1])
    action = np.array([[-5.0, 5.0], [0.5, 1.5]], dtype=np.float32)
    step = environments.step(action)
    np.testing.assert_array_equal(step.observation["observation"], np.array([[-1, 2], [0.5, 1.5]], dtype=np.float32))
    np.testing.assert_array_equal(action, np.array([[-5, 5], [0.5, 1.5]], dtype=np.float32))
    environments.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise", "environment 1 of 3 raised ValueError: the cart fell off at step 3; last action 1"),
        ("shape", r"returned observation of shape \(2,\), where its space says \(3,\), at step 3; last action 1"),
        ("nan", r"environment 1 of 3 returned observation \[nan nan nan\] at step 3; last action 1"),
        ("reward", "environment 1 of 3 returned reward inf at step 3; last action 1"),
    ],
)
def test_a_failure_says_which_environment_when_and_after_what(fault, message):
    environments = counting(3, fault=fault, fault_seed=11)  # episodes of 1, 4 and 2 actions
    environments.reset([10, 11, 12])
    with pytest.raises(EnvironmentFailed, match=message):
        for _ in range(4):
            environments.step(actions(3))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_a_final_observation_that_is_not_finite_names_its_environment(mode):
    environments = modes("Counting-v0", mode, fault="nan", fault_seed=1, fault_step=4)
    environments.reset([0, 1])  # environment 1 ends its first episode in step 4
    with pytest.raises(EnvironmentFailed, match="environment 1 of 2 returned observation"):
        for _ in range(4):
            environments.step(actions(2))


def modes(name: str, mode: AutoresetMode, count: int = 2, **kwargs) -> Environments:
    envs = [lambda: gymnasium.make(name, disable_env_checker=True, **kwargs)] * count
    return Environments(SyncVectorEnv(envs, autoreset_mode=mode), count=count)


def test_a_vector_environment_that_reuses_its_array_is_refused():
    env = SyncVectorEnv([lambda: gymnasium.make("Counting-v0", disable_env_checker=True)] * 2, copy=False)
    environments = Environments(env, count=2)
    environments.reset([0, 1])
    with pytest.raises(EnvironmentFailed, match="same observation array twice; return a copy"):
        environments.step(actions(2))


def test_a_failing_vector_class_is_named_as_a_whole():
    environments = Environment("CartPole-v1").make(4)
    environments.reset([0, 1, 2, 3])
    with pytest.raises(EnvironmentFailed, match=r"one of environments 0..3 raised AssertionError.*last actions \[9, 9"):
        environments.step(np.full(4, 9))
    environments.close()
