import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from learners import Policy
from learners.description import Description
from learners.export import ExportedPolicy, Verified, export_policy, policy_format_of
from learners.exported import ExportError, load_exported
from learners.extras import MissingExtra
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import Mlp, SmallConv
from learners.nets.transformer import Transformer
from learners.policy import ModelPolicy
from replay.schema import Column

FRAMES = Column("uint8", (24, 24))
ACTIONS = gym.spaces.Discrete(4)
CASES = {
    "vectors, normalised, continuous": Description(
        ActorCritic(Mlp((8,)), value_encoder=Mlp((8,)), normalise=True),
        {"observation": Column("float32", (3,))},
        gym.spaces.Box(-1, np.inf, (2,), np.float32),
    ),
    "stacked frames and a memory": Description(
        ActorCritic(SmallConv(8), core=Gru(4), stack=3), {"observation": FRAMES}, gym.spaces.Discrete(4, start=2)
    ),
    "a dict with colour, in bf16": Description(
        ActorCritic(SmallConv(8), stack=2, precision="bf16"),
        {"observation.camera": Column("uint8", (24, 26, 3)), "observation.lives": Column("int64")},
        gym.spaces.MultiDiscrete([2, 3]),
    ),
}
FORMATS = ["safetensors", "pt2", "onnx"]
WRITTEN = [
    ("vectors, normalised, continuous", "safetensors"),
    ("vectors, normalised, continuous", "pt2"),
    ("stacked frames and a memory", "safetensors"),
    ("stacked frames and a memory", "onnx"),
    ("a dict with colour, in bf16", "safetensors"),
    ("a dict with colour, in bf16", "onnx"),
]
"""What is exported to what. Both functions are of one graph, and a trace takes seconds."""

Written = Callable[[str, str], tuple[Path, dict[str, Verified]]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The file of a case and a suffix, and what its verification came to; each is written once."""

    @cache
    def export(case: str, suffix: str) -> tuple[Path, dict[str, Verified]]:
        if suffix == "onnx":
            pytest.importorskip("onnxscript")
        description = replace(CASES[case], facts={"recipe": "ppo"})
        path = tmp_path_factory.mktemp("export") / f"policy.{suffix}"
        checks = {"random": [sequence(description, 6, 5)]}
        return path, export_policy(description, weights_of(description), path, checks)

    return export


def weights_of(description: Description) -> dict[str, np.ndarray]:
    """Weights of a policy with opinions: heads start almost uniform."""
    torch.manual_seed(1)
    model = description.build()
    with torch.no_grad():
        torch.nn.init.normal_(model.policy.linear.weight)
        for name, moments in model.moments_by_column.items():
            rows = 3 * torch.randn(50, *description.observation[name].shape) + 1 if "observation" in name else None
            if rows is not None:
                moments.update(rows, torch.ones(50))
    return model.acting_weights()


def observations(description: Description, rows: int, count: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def drawn(column: Column) -> np.ndarray:
        shape = (rows, count, *column.shape)
        if column.shape == (4,):  # an action mask
            return rng.integers(0, 2, shape).astype(column.dtype)
        return (rng.normal(size=shape) if column.dtype == "float32" else rng.integers(0, 256, shape)).astype(
            column.dtype
        )

    return {name: drawn(column) for name, column in description.observation.items()}


def sequence(description: Description, rows: int, count: int, *, seed: int = 0):
    first = np.random.default_rng(seed).random((rows, count)) < 0.2
    first[0] = True
    return observations(description, rows, count, seed=seed), first


def parts(name: str, value: np.ndarray):
    """An observation as an environment gives it."""
    return value if name == "observation" else {name.partition(".")[2]: value}


def merged(columns: dict[str, np.ndarray], t: int):
    whole = [parts(name, value[t]) for name, value in columns.items()]
    return whole[0] if not isinstance(whole[0], dict) else {k: v for part in whole for k, v in part.items()}


@pytest.mark.parametrize(("case", "suffix"), WRITTEN)
def test_what_is_written_acts_as_the_model_does(case: str, suffix: str, written: Written) -> None:
    description, (path, found) = CASES[case], written(case, suffix)
    weights = weights_of(description)
    assert found["random"].rows == 30 and found["random"].difference < 1e-5 and found["random"].other_actions == 0

    if suffix != "safetensors":  # functions compute in float32
        description = replace(description, model=replace(description.model, precision="fp32"))
    model = description.build()
    model.load_acting_weights(weights)
    original, policy = ModelPolicy(model), Policy.load(path)
    # One stream and seven: neither is the number that the graph was traced with.
    for count in (1, 7):
        columns, first = sequence(description, 8, count, seed=3)
        state = original.initial_state(count)
        policy.reset()
        for t in range(8):
            seen = {name: value[t] for name, value in columns.items()}
            wanted, state = original.act(seen, state, first[t], np.random.default_rng(0), greedy=True)
            policy.reset(first[t])
            action = policy.act(merged(columns, t))
            if action.dtype.kind == "f":
                np.testing.assert_allclose(action, np.clip(wanted["action"], -1, np.inf), atol=1e-5)
            else:
                np.testing.assert_array_equal(action, wanted["action"])
    loaded = policy.description
    assert (loaded.model, loaded.observation) == (description.model, description.observation)
    assert policy.action_space == description.action_space and loaded.facts["recipe"] == "ppo"


def test_a_function_gives_the_distributions_parameters_and_its_samples_follow_them(written: Written) -> None:
    description = CASES["stacked frames and a memory"]
    policy = load_exported(written("stacked frames and a memory", "onnx")[0])
    assert list(policy.inputs) == ["observation", "frames.observation", "core_state", "first"]
    frames = np.repeat(observations(description, 1, 1)["observation"][0], 2000, 0)
    state, first = policy.initial_state(2000), np.ones(2000, np.bool_)
    rows, after = policy.act({"observation": frames}, state, first, np.random.default_rng(0))
    assert set(after) == {"frames.observation", "core_state"} and set(rows) == {"action", "value", "policy_logits"}
    shares = np.bincount(rows["action"], minlength=6)[2:] / 2000
    np.testing.assert_allclose(shares, torch.from_numpy(rows["policy_logits"][0]).softmax(0), atol=0.05)


@pytest.mark.parametrize(
    "description",
    [
        Description(
            ActorCritic(Mlp((8,)), core=Transformer(hidden=8)), {"observation": Column("float32", (3,))}, ACTIONS
        ),
        Description(
            ActorCritic(Mlp((8,))),
            {"observation.place": Column("float32", (3,)), "observation.action_mask": Column("uint8", (4,))},
            ACTIONS,
        ),
        Description(
            ActorCritic(Mlp((8,)), squashed=True),
            {"observation": Column("float32", (3,))},
            gym.spaces.Box(-2, 3, (2,), np.float32),
        ),
    ],
    ids=["a transformer", "action masks", "a squashed Gaussian"],
)
def test_any_policy_can_be_a_function(description: Description, tmp_path: Path) -> None:
    path = tmp_path / "policy.pt2"
    found = export_policy(description, weights_of(description), path, {"random": [sequence(description, 9, 4)]})
    assert found["random"].difference < 1e-5 and found["random"].other_actions == 0
    columns, _ = sequence(description, 1, 300)
    actions = Policy.load(path).act(merged(columns, 0), greedy=False)
    assert len(np.unique(actions)) > 1 and all(description.action_space.contains(action) for action in actions)
    if "observation.action_mask" in columns:
        allowed = columns["observation.action_mask"][0] > 0
        assert allowed[allowed.any(1)][np.arange(allowed.any(1).sum()), actions[allowed.any(1)]].all()


def test_the_docs_way_to_use_onnx_runs(written: Written) -> None:
    path, _ = written("stacked frames and a memory", "onnx")
    page = (Path(__file__).resolve().parents[2] / "docs/models.md").read_text()
    (example,) = re.findall(r"```python\n(import json\n.*?)```", page, re.DOTALL)
    names: dict = {}
    exec(example.replace('"policy.onnx"', repr(str(path))), names)
    for name in ("core_state", "frames.observation"):
        assert names["inputs"][name] is names["outputs"][f"next.{name}"]
    wanted = Policy.load(path).act(np.zeros((1, 24, 24), np.uint8))
    assert names["outputs"]["action"] == wanted


@pytest.mark.parametrize(
    ("case", "suffix", "output", "off", "words"),
    [
        ("vectors, normalised, continuous", "pt2", "action", 1e-2, r"by 0\.01 on random observations"),
        ("vectors, normalised, continuous", "pt2", "value", np.nan, "by inf on random observations"),
        ("stacked frames and a memory", "onnx", "action", 1, "on random observations, more than 0.0001"),
    ],
)
def test_nothing_is_written_that_acts_differently(
    case: str,
    suffix: str,
    output: str,
    off: float,
    words: str,
    written: Written,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    description, exported = CASES[case], load_exported(written(case, suffix)[0])
    start = getattr(description.action_space, "start", 0)

    def function(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = exported._function(inputs)
        moved = outputs[output] + off
        return outputs | {output: moved if off != 1 else (moved - start) % 4 + start}  # another action of the space

    def wrong(*arguments: Any) -> ExportedPolicy:
        arguments[-1].write_text("wrong")
        return ExportedPolicy(exported.description, function)

    monkeypatch.setattr("learners.export._written", wrong)
    path = tmp_path / f"policy.{suffix}"
    with pytest.raises(ExportError, match=f"would differ from the policy .*{words}"):
        export_policy(description, weights_of(description), path, {"random": [sequence(description, 2, 2)]})
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt2"
    path.write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        export_policy(CASES["vectors, normalised, continuous"], {}, path, {})
    assert path.read_text() == "mine"


def test_onnx_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    description = CASES["vectors, normalised, continuous"]
    with pytest.raises(MissingExtra, match=r'onnxscript, which cannot be imported .*: pip install "contrail\[onnx\]"'):
        export_policy(description, weights_of(description), tmp_path / "policy.onnx", {})


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_something_else_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"policy.{suffix}"
    path.write_bytes(b"something else")
    with pytest.raises(ExportError, match=f"{path} cannot be read"):
        Policy.load(path)


def test_suffixes_say_the_format() -> None:
    assert [policy_format_of(Path(f"a.{suffix}")) for suffix in FORMATS] == FORMATS
    assert policy_format_of(Path("a.parquet")) is None
