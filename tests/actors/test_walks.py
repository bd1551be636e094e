"""NoisyNavigation and StaticMaze: what their frames show, where actions lead, when they pay, what knowing is worth."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from actors.environments import Environment
from actors.envs.noisy_navigation import NoisyNavigationVector
from actors.envs.static_maze import LAST, StaticMazeVector, maze, walls
from actors.envs.walk import WalkVector, agents, goals, ways
from actors.evaluator import evaluate
from actors.policy import RandomPolicy
from replay.schema import Column

NAVIGATION, MAZE = "actors.envs:NoisyNavigation-v0", "actors.envs:StaticMaze-v0"
CONTRAST = 60
LEADS = maze()
MAZES = np.maximum(walls() * CONTRAST, np.maximum(agents(8, CONTRAST), goals(8, CONTRAST)[LAST]))


def likeliest(frames: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Which of the pictures (m, 32, 32) explains each of the frames (n, 32, 32) best under static: (n,)."""
    patterns = shown.reshape(len(shown), -1).astype(np.float64)
    seen = frames.reshape(len(frames), -1) - (frames.max() - CONTRAST) / 2
    return (seen @ patterns.T - 0.5 * np.square(patterns).sum(1)).argmax(1)


def towards_the_goal(frames: np.ndarray) -> np.ndarray:
    """The action (n,) that is nearer to where the goal is seen from where the agent is seen."""
    agent, goal = (likeliest(frames, signs(5, CONTRAST)) for signs in (agents, goals))
    (row, column), (goal_row, goal_column) = np.divmod(agent, 5), np.divmod(goal, 5)
    vertical = np.where(goal_row < row, 0, 1)
    return np.where(goal_row != row, vertical, np.where(goal_column < column, 2, 3))


def distances() -> np.ndarray:
    """Steps from each cell of the maze to the goal, (64,)."""
    steps = np.where(np.arange(LAST + 1) == LAST, 0, 1000)
    for _ in range(LAST):
        steps = np.minimum(steps, steps[LEADS].min(1) + 1)
    return steps


def out_of_the_maze(frames: np.ndarray) -> np.ndarray:
    """The action (n,) that leads to the goal from where the agent is seen."""
    return distances()[LEADS].argmin(1)[likeliest(frames, MAZES)]


class Knowing:
    """Does what a function of the frames says."""

    def __init__(self, choose) -> None:
        self.extras: dict[str, Column] = {}
        self.choose = choose

    def initial_state(self, n: int) -> None: ...

    def act(
        self, observation: dict[str, np.ndarray], state: None, first: np.ndarray, rng: np.random.Generator, **_: bool
    ) -> tuple[dict[str, np.ndarray], None]:
        chosen = self.choose(observation["observation"])
        return {"action": chosen, "log_prob": np.zeros(len(first), np.float32)}, state

    def load(self, version: int, weights: dict[str, np.ndarray]) -> None: ...


@pytest.mark.parametrize(("env", "choose", "least"), [(NAVIGATION, towards_the_goal, 0.98), (MAZE, out_of_the_maze, 1)])
def test_who_sees_through_the_static_arrives(env: str, choose, least: float) -> None:
    played = evaluate(Knowing(choose), Environment(env), episodes=100, seed=3, count=20, max_steps=100)
    assert np.mean([episode.total for episode in played]) >= least
    assert np.mean([episode.length for episode in played]) < 10


@pytest.mark.parametrize(("env", "chance"), [(NAVIGATION, 0.29), (MAZE, 0.08)])
def test_a_random_walk_seldom_arrives(env: str, chance: float) -> None:
    policy = RandomPolicy(gymnasium.spaces.Discrete(4))
    played = evaluate(policy, Environment(env), episodes=1000, seed=3, count=200, max_steps=100)
    assert np.mean([episode.total for episode in played]) == pytest.approx(chance, abs=0.03)


def test_a_grid_leads_to_neighbours_and_at_its_border_nowhere() -> None:
    up, down, left, right = ways(5)[[0, 6, 24]].T
    assert (up.tolist(), down.tolist()) == ([0, 1, 19], [5, 11, 24])
    assert (left.tolist(), right.tolist()) == ([0, 5, 23], [1, 7, 24])


def test_the_maze_is_a_tree_with_walls_between_cells_that_are_not_joined() -> None:
    assert (np.arange(64)[:, None] != LEADS).sum() == 2 * 63, "64 cells are joined by 63 ways, there and back"
    assert distances().max() < 48, "nowhere is too far away"
    np.testing.assert_array_equal(maze(), LEADS)
    drawn = walls().reshape(8, 4, 8, 4)
    for cell, (row, column) in enumerate(np.argwhere(np.ones((8, 8)))):
        assert drawn[row, 3, column].all() == (LEADS[cell, 1] == cell)
        assert drawn[row, :, column, 3].all() == (LEADS[cell, 3] == cell)
    assert not drawn[:, :3, :, :3].any()


def test_a_step_in_the_navigation_goes_where_it_is_told_but_for_slips() -> None:
    env = NoisyNavigationVector(500, static=0)
    frames, before = env.reset(seed=0)
    assert (before["class"] != before["goal"]).all()
    assert set(before["goal"]) == set(range(25))
    shown = np.maximum(agents(5, CONTRAST)[before["class"]], goals(5, CONTRAST)[before["goal"]])
    np.testing.assert_array_equal(frames, shown)
    actions = np.arange(500) % 4
    _, reward, terminated, _, after = env.step(actions)
    told = ways(5)[before["class"], actions] == after["class"]
    # A slip goes where it was told to by chance, or stays at a border.
    assert 1 - told.mean() == pytest.approx(0.07, abs=0.02)
    np.testing.assert_array_equal(after["goal"], before["goal"])
    np.testing.assert_array_equal(terminated, after["class"] == after["goal"])
    np.testing.assert_array_equal(reward, terminated)
    assert terminated.any()
    _, reward, _, _, anew = env.step(actions)
    assert not reward[terminated].any(), "the action after an end is ignored"
    assert (anew["class"] != anew["goal"])[terminated].all()
    assert (anew["goal"] != after["goal"])[terminated].any(), "every episode has a goal of its own"


def test_a_step_in_the_maze_follows_its_ways_and_only_arriving_pays() -> None:
    env = StaticMazeVector(500, static=0)
    frames, info = env.reset(seed=0)
    assert set(info["class"]) == set(range(LAST)), "nobody begins at the goal"
    assert set(np.unique(frames)) == {0, CONTRAST}
    np.testing.assert_array_equal(frames, MAZES[info["class"]])
    over, arrivals = np.zeros(500, bool), []
    for action in [0, 1, 2, 3, 1, 3]:
        reached = LEADS[info["class"], action]
        _, reward, terminated, truncated, info = env.step(np.full(500, action))
        np.testing.assert_array_equal(info["class"][~over], reached[~over])
        np.testing.assert_array_equal(terminated, (reached == LAST) & ~over)
        np.testing.assert_array_equal(reward, terminated)
        assert (info["class"] != LAST)[over].all(), "the next episode begins elsewhere"
        assert not truncated.any()
        over = terminated
        arrivals.append(terminated.sum())
    assert sum(arrivals) > 0


@pytest.mark.parametrize(("env", "decisions"), [(NoisyNavigationVector(200), 16), (StaticMazeVector(200), 48)])
def test_who_does_not_arrive_is_cut_off(env: WalkVector, decisions: int) -> None:
    env.reset(seed=0)
    over = np.zeros(200, bool)
    for step in range(decisions):
        _, _, terminated, truncated, _ = env.step(np.zeros(200, np.int64))
        assert not truncated[~over].any() or step == decisions - 1
        over |= terminated
    assert not over.all()
    assert truncated[~over].all()
    assert not terminated[~over].any()


def test_who_arrives_with_the_last_decision_is_not_cut_off() -> None:
    env, rng = NoisyNavigationVector(500), np.random.default_rng(0)
    env.reset(seed=0)
    over = np.zeros(500, bool)
    for _ in range(15):
        over |= env.step(rng.integers(4, size=500))[2]
    _, reward, terminated, truncated, _ = env.step(rng.integers(4, size=500))
    assert terminated[~over].any()
    np.testing.assert_array_equal(reward, terminated)
    np.testing.assert_array_equal(truncated[~over], ~terminated[~over])


@pytest.mark.parametrize("env", [NAVIGATION, MAZE])
def test_a_seed_repeats_everything_and_a_single_environment_is_the_first_of_a_vector(env: str) -> None:
    single = gymnasium.make(env)
    vector = gymnasium.make_vec(env, num_envs=1, vectorization_mode="vector_entry_point")
    observation, _ = single.reset(seed=4)
    observations, _ = vector.reset(seed=4)
    assert observation.dtype == np.uint8
    for step in range(100):
        np.testing.assert_array_equal(observation, observations[0])
        observation, *ended, _ = single.step(step % 4)
        observations, *all_ended, _ = vector.step(np.array([step % 4]))
        assert ended == [value[0] for value in all_ended]
    check_env(single.unwrapped)


@pytest.mark.parametrize("env", [NAVIGATION, MAZE])
def test_static_is_a_parameter_and_fresh(env: str) -> None:
    environments = Environment(env, {"static": 10}).make(3)
    seen = environments.reset([1, 2, 3])["observation"].astype(int)
    later = environments.step(np.zeros(3, np.int64)).observation["observation"]
    assert set(np.unique(seen)) == {*range(11), *range(60, 71)}
    assert (seen % 60 != later % 60).mean() > 0.85
    with pytest.raises(ValueError, match="static is 230, wanted 0 to 195"):
        Environment(env, {"static": 230}).make(3)
