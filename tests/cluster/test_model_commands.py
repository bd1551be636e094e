"""What is done with a trained model, from the command line."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from learners import Policy
from tests.cluster.commands import Contrail


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with two checkpoints of CartPole, one with a memory, and one that kept no rows."""
    from cluster import cli

    folder = tmp_path_factory.mktemp("runs")
    small = ["--topology.local", "--envs", "4", "--rows", "16", "--epochs", "1", "--run.folder", str(folder)]
    often = ["--run.checkpoint-seconds", "0", "--run.keep", "2"]
    assert cli.run(["train", "ppo", "--steps", "300", *small, *often, "--run.name", "cart"]) == 0
    frames = ["--steps", "600", "--minibatches", "1", "--run.rows", "none"]
    assert cli.run(["train", "cpc_ppo", *frames, *small, "--run.name", "recall"]) == 0
    return folder


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("suffix", ["safetensors", "onnx"])  # the memory below is written to .pt2
def test_export_compares_with_the_model_before_it_says_so(suffix: str, runs: Path, contrail: Contrail) -> None:
    pytest.importorskip("onnxscript" if suffix == "onnx" else "torch")
    outcome = contrail("export", runs / "cart", "--format", suffix)
    steps = steps_of(runs / "cart")[-1]
    path = runs / "cart" / f"policy-{steps}.{suffix}"
    assert outcome.code == 0 and outcome.out.startswith(f"{path}: {path.stat().st_size:,} bytes, the policy of {steps}")
    assert " on 256 random observations, " in outcome.out and "recorded observations; the same greedy" in outcome.out
    exported, own = Policy.load(path), Policy.load(runs / "cart")
    assert exported.description.facts["steps"] == steps
    observations = np.random.default_rng(0).normal(size=(200, 4))
    assert np.array_equal(exported.act(observations), own.act(observations))
    assert contrail("export", runs / "cart", "--format", suffix).sentence.endswith("give another TARGET, or remove it")


def test_a_memory_is_exported_and_rows_need_not_have_been_kept(runs: Path, contrail: Contrail, tmp_path: Path) -> None:
    outcome = contrail("export", runs / "recall", tmp_path / "policy.pt2")
    assert outcome.code == 0 and "256 random observations; the same greedy actions" in outcome.out
    exported, own = Policy.load(tmp_path / "policy.pt2"), Policy.load(runs / "recall")
    frames = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    assert all(np.array_equal(exported.act(frame), own.act(frame)) for frame in frames)


def test_an_older_checkpoint_is_another_policy(runs: Path, contrail: Contrail, tmp_path: Path) -> None:
    steps = steps_of(runs / "cart")
    assert len(steps) == 2
    for step in steps:
        path = tmp_path / f"{step}.safetensors"
        assert contrail("export", runs / "cart", path, "--checkpoint", step).code == 0
        assert Policy.load(path).description.facts["steps"] == step
        own = Policy.load(runs / f"cart/checkpoints/{step:012d}")
        weights = [policy._acting.model.encoder.layers[0].weight for policy in (Policy.load(path), own)]
        assert (weights[0] == weights[1]).all()


def test_a_run_of_before_is_exported_by_its_recipe(runs: Path, contrail: Contrail, tmp_path: Path) -> None:
    description = json.loads((runs / "cart/experiment.json").read_text())
    assert description.pop("policy")["model"]["type"] == "learners.model:ActorCritic"
    (tmp_path / "old").mkdir()
    (tmp_path / "old/experiment.json").write_text(json.dumps(description))
    (tmp_path / "old/checkpoints").symlink_to(runs / "cart/checkpoints")
    assert contrail("export", tmp_path / "old", tmp_path / "policy.safetensors").code == 0
    assert Policy.load(tmp_path / "policy.safetensors").act(np.zeros(4)) in (0, 1)


def test_a_policy_of_a_recipe_in_a_file_of_ones_own(contrail: Contrail, tmp_path: Path) -> None:
    (tmp_path / "own_encoder.py").write_text(OWN)
    assert contrail.train(f"{tmp_path}/own_encoder.py:own", "--steps", 100, name="own").code == 0
    assert Policy.load(contrail.runs / "own").act(np.zeros(4)) in (0, 1)
    contrail("export", contrail.runs / "own", tmp_path / "own.safetensors")
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    with pytest.raises(ValueError, match="the model uses Wide of the module own_encoder: import it before loading"):
        Policy.load(tmp_path / "own.safetensors")


OWN = '''
from dataclasses import dataclass, replace
from learners.nets.encoders import Mlp
from recipes.ppo import ppo

@dataclass(frozen=True)
class Wide:
    width: int = 9
    def build(self, columns):
        return Mlp((self.width,)).build(columns)

def own(*, envs: int = 4, rows: int = 16, epochs: int = 1, steps: int = 100, topology=ppo.__kwdefaults__["topology"]):
    """Mine."""
    made = ppo(envs=envs, rows=rows, epochs=epochs, steps=steps, topology=topology)
    return replace(made, model=replace(made.model, encoder=Wide(7)))
'''


def test_play_films_episodes_and_tells_their_returns(runs: Path, contrail: Contrail, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    flags = ["--output", tmp_path / "film.gif", "--episodes", 2, "--seed", 3]
    outcome = contrail("play", runs / "recall", *flags)
    assert outcome.code == 0, outcome.error
    first, second, mean, film = outcome.out.splitlines()
    assert first.startswith("episode 1: return ") and first.endswith(", 12 steps")
    assert second.startswith("episode 2: return ") and mean.startswith("mean return ")
    assert film.startswith(f"{tmp_path}/film.gif: ") and (tmp_path / "film.gif").read_bytes()[:6] == b"GIF89a"
    assert "exists already" in contrail("play", runs / "recall", *flags).sentence
    inside = contrail("play", runs / "recall", "--output", tmp_path / "film.gif/x.gif")
    assert inside.code == 2 and "film.gif/x.gif cannot be written" in inside.sentence
    assert contrail("play", runs / "recall").code == contrail("play", runs / "recall").code == 0


def test_probe_tells_what_can_be_read_and_writes_a_page(runs: Path, contrail: Contrail) -> None:
    outcome = contrail("probe", runs / "recall", "--steps", 400, "--envs", 4)
    assert outcome.code == 0, outcome.error
    assert "untrained" in outcome.out and "effective rank" in outcome.out and "alignment, shifted" in outcome.out
    found = json.loads((runs / "recall/probe.json").read_text())
    names = ["encoder", "context", "untrained encoder", "untrained context", "observation"]
    assert list(found["scores"]["step"]) == names
    # The query shows itself, and the memory counts: even an untrained one tells the step better than a guess.
    step = found["scores"]["step"]
    assert step["context"]["linear"]["value"] > found["guesses"]["step"] + 0.2
    assert 1 <= found["health"]["effective rank"]["context"] <= 64
    page = (runs / "recall/events/projector_config.pbtxt").read_text()
    assert page.count("embeddings {") == 2 and "sprite.png" in page
    chosen = contrail("probe", runs / "recall", "--steps", 200, "--variables", "step", "--no-projector")
    assert list(json.loads((runs / "recall/probe.json").read_text())["scores"]) == ["step"]
    assert "projector" not in chosen.out


def test_a_run_probes_itself_in_the_end_and_the_numbers_are_in_tensorboard(contrail: Contrail) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    outcome, run = contrail.train("ppo", "--steps", 300, "--run.probe"), contrail.runs / "run"
    assert outcome.code == 0 and "read by a linear model" in outcome.out
    (steps,) = steps_of(run)
    assert json.loads((run / "probe.json").read_text())["steps"] == steps
    events = EventAccumulator(str(run / "events"))
    events.Reload()
    (point,) = events.Scalars("probe/effective_rank/encoder")
    assert point.step == steps and math.isfinite(point.value)
    assert "probe/step/untrained_encoder_near" in events.Tags()["scalars"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "{}/cart"], "nothing says what to write where: give a TARGET, or --format pt2 for the policy"),
        (["export", "{}/cart", "--format", "parquet"], "nothing says what to write where: give a TARGET for rows"),
        (["export", "{}/cart", "x.pt2", "--format", "onnx"], "x.pt2 does not end in .onnx"),
        (["export", "{}/cart", "x.pt2", "--env", "CartPole-v1"], "--env is for Minari"),
        (["export", "{}/cart", "x.parquet", "--checkpoint", "3"], "--checkpoint is for policies"),
        (["export", "{}/cart", "x.pt2", "--checkpoint", "3"], "has no checkpoint 3: there are "),
        (["export", "{}/none", "x.pt2"], "there is no run "),
        (["play", "{}/none"], "there is no run "),
        (["play", "{}/cart", "--output", "film.avi"], "film.avi ends in .avi, wanted .gif or .mp4"),
        (["play", "{}/cart", "--output", "film"], "film ends in nothing, wanted .gif or .mp4"),
        (["play", "{}/cart", "--episodes", "0"], "--episodes is 0, wanted at least 1"),
        (["play", "{}/cart", "--max-steps", "0"], "--max-steps is 0, wanted at least 1"),
        (["play", "{}/cart", "--fps", "0"], "--fps is 0, wanted more than 0"),
        (["play", "{}/cart", "--checkpoint", "first"], "has no checkpoint first: there are "),
        (["play", "{}/cart", "--view", "observation"], "CartPole-v1 cannot be shown: its observations are no images"),
        (["play", "{}/recall", "--view", "render"], "does not render as an array"),
        (["probe", "{}/none"], "there is no run "),
        (["probe", "{}/cart", "--steps", "9"], "--steps is 9, wanted at least 100"),
        (["probe", "{}/cart", "--envs", "0"], "--envs is 0, wanted at least 1"),
        (
            ["probe", "{}/recall", "--steps", "300", "--variables", "depth"],
            "--variables depth cannot be read: there are",
        ),
        (["probe", "{}/cart", "--steps", "100", "--envs", "2", "--seed", "-1"], "--seed is -1, wanted at least 0"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: list[str], words: str, runs: Path, contrail: Contrail) -> None:
    outcome = contrail(*[argument.replace("{}", str(runs)) for argument in arguments])
    assert outcome.code == 2 and words in outcome.sentence


@pytest.mark.parametrize("command", ["export", "play", "probe"])
def test_help(command: str, contrail: Contrail) -> None:
    outcome = contrail(command, "--help")
    assert outcome.code == 0 and "--checkpoint" in outcome.out
