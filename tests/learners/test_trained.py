import json
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners import Policy, checkpoint
from learners.description import Description
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp, SmallConv
from learners.policy import ModelPolicy
from learners.trained import PolicyError
from replay.schema import Column

HOUSE = Path(__file__).resolve().parents[2]
REMEMBERING = Description(
    ActorCritic(SmallConv(8), core=Gru(4), stack=2), {"observation": Column("uint8", (24, 24))}, gym.spaces.Discrete(9)
)
CONTINUOUS = Description(
    ActorCritic(Mlp((8,))), {"observation": Column("float32", (3,))}, gym.spaces.Box(-0.1, 0.1, (2,), np.float64)
)


def acting(description: Description) -> ModelPolicy:
    torch.manual_seed(0)
    model = description.build()
    with torch.no_grad():
        torch.nn.init.normal_(model.policy.linear.weight)
    return ModelPolicy(model)


def run_folder(folder: Path, description: Description, *steps: int) -> Path:
    """A run's folder as training leaves it; the weights of each checkpoint are its env steps."""
    folder.mkdir(exist_ok=True)
    (folder / "experiment.json").write_text(json.dumps({"policy": json.loads(description.to_json())}))
    for step in steps:
        tensors = {f"model/{name}": torch.full_like(t, step) for name, t in description.build().state_dict().items()}
        checkpoint.save(folder / f"checkpoints/{step:012d}", tensors, {"version": 1, "steps": step})
    return folder


@pytest.fixture
def frames(rng: np.random.Generator) -> np.ndarray:
    """Seven rows of three streams."""
    return rng.integers(0, 256, (7, 3, 24, 24), dtype=np.uint8)


def test_it_remembers_between_calls_and_forgets_where_told(rng: np.random.Generator) -> None:
    original = acting(REMEMBERING)
    policy, forgetful, unforgetting = (Policy(acting(REMEMBERING), REMEMBERING) for _ in range(3))
    frames = rng.integers(0, 256, (12, 60, 24, 24), dtype=np.uint8)
    first = rng.random((12, 60)) < 0.3
    first[0] = True
    state = original.initial_state(60)
    others = np.zeros(2)
    for t in range(12):
        columns, state = original.act({"observation": frames[t]}, state, first[t], rng, greedy=True)
        policy.reset(first[t])
        forgetful.reset()
        assert np.array_equal(policy.act(frames[t]), columns["action"])
        others += [(each.act(frames[t]) != columns["action"]).sum() for each in (forgetful, unforgetting)]
    assert others.min() > 0, "the past makes no difference: the test shows nothing"


def test_one_environment_is_the_first_of_many(frames: np.ndarray) -> None:
    many, one = (Policy(acting(REMEMBERING), REMEMBERING) for _ in range(2))
    for t in range(7):
        action = one.act(frames[t, 0])
        assert np.shape(action) == () and action == many.act(frames[t])[0] and REMEMBERING.action_space.contains(action)
    one.reset()
    assert one.act(frames[0, 0]) == Policy(acting(REMEMBERING), REMEMBERING).act(frames[0, 0])


def test_continuous_actions_lie_in_the_space(rng: np.random.Generator) -> None:
    policy = Policy(acting(CONTINUOUS), CONTINUOUS, seed=3)
    observation = rng.normal(size=(50, 3))  # float64, as many environments give it
    actions = policy.act(observation, greedy=False)
    assert actions.dtype == np.float64 and np.abs(actions).max() == 0.1
    assert all(CONTINUOUS.action_space.contains(action) for action in actions)
    again = Policy(acting(CONTINUOUS), CONTINUOUS, seed=3).act(observation, greedy=False)
    assert np.array_equal(again, actions)
    assert not np.array_equal(policy.act(observation, greedy=False), actions)


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.zeros((5, 4), np.float32), "observation has shape (5, 4), wanted (3,) or (n, 3)"),
        (np.zeros(4, np.float32), "observation has shape (4,), wanted (3,) or (n, 3)"),
        (np.zeros(3, np.complex64), "observation is complex64, wanted float32"),
        ({"place": np.zeros(3)}, "the observation has ['observation.place'], wanted ['observation']"),
    ],
)
def test_an_observation_of_something_else_is_refused(observation, words: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(words)):
        Policy(acting(CONTINUOUS), CONTINUOUS).act(observation)


def test_images_must_be_bytes(frames: np.ndarray) -> None:
    with pytest.raises(PolicyError, match="observation is float64, wanted uint8"):
        Policy(acting(REMEMBERING), REMEMBERING).act(frames[0] / 255)


def test_another_number_of_environments_needs_a_reset(frames: np.ndarray) -> None:
    policy = Policy(acting(REMEMBERING), REMEMBERING)
    policy.act(frames[0])
    with pytest.raises(PolicyError, match=re.escape("2 observations after 3: call reset()")):
        policy.act(frames[0, :2])
    with pytest.raises(PolicyError, match="reset got 2 flags, wanted one for each of 3"):
        policy.reset([True, False])
    policy.reset()
    assert policy.act(frames[0, :2]).shape == (2,)


def test_a_run_is_its_newest_checkpoint(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", CONTINUOUS, 1, 20)
    (run / "checkpoints/000000000021.partial").mkdir()
    for path, weight in ((run, 20), (str(run), 20), (run / "checkpoints/000000000001", 1)):
        policy = Policy.load(path)
        assert all((tensor == weight).all() for tensor in policy._acting.model.state_dict().values())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere", "there is no"),
        ("empty", "is no run, no checkpoint, and no .safetensors, .pt2 or .onnx file"),
        ("new", "has no checkpoint yet"),
        ("moved", "is not in its run's folder"),
        ("old", "does not describe its policy (it is of an earlier version)"),
        ("odd", "does not describe its policy (model.encoder is odd)"),
        ("other", "the weights do not fit the model"),
    ],
)
def test_what_is_no_policy_is_told_in_a_sentence(path: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run_folder(tmp_path / "new", CONTINUOUS)
    run = run_folder(tmp_path / "run", CONTINUOUS, 5)
    (run / "checkpoints/000000000005").rename(tmp_path / "moved")
    for name, described in (("old", None), ("odd", "model.encoder is odd")):
        run_folder(tmp_path / name, CONTINUOUS, 5)
        (tmp_path / name / "experiment.json").write_text(json.dumps({"policy": described}))
    run_folder(tmp_path / "other", CONTINUOUS, 5)
    run_folder(tmp_path / "other", REMEMBERING)
    with pytest.raises(PolicyError, match=re.escape(words)):
        Policy.load(tmp_path / path)


def test_the_example_in_the_docs_runs_and_without_ray(tmp_path: Path) -> None:
    run = tmp_path / "runs/NAME"
    run.parent.mkdir()
    description = Description(ActorCritic(Mlp((8,))), {"observation": Column("float32", (4,))}, gym.spaces.Discrete(2))
    run_folder(run, description, 3)
    page = (HOUSE / "docs/models.md").read_text()
    (example,) = re.findall(r"```python\n(from learners import Policy.*?)```", page, re.DOTALL)
    assert len(example.splitlines()) <= 12
    program = f"{example}\nimport sys\nassert not {{'ray', 'cluster', 'recipes'}} & set(sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"return \d+\.0\n", done.stdout)
