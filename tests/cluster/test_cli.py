"""What a person sees who makes a mistake: one sentence, exit code 2, nothing left behind."""

import json
import shutil
from pathlib import Path

import pytest

from cluster.run_folder import RunFolder
from learners import checkpoint
from tests.cluster.commands import FAULTY, Contrail, segments_folders


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "ppo", "--help"]])
def test_help_is_no_mistake_and_lists_what_there_is(arguments: list[str], contrail: Contrail) -> None:
    outcome = contrail(*arguments)
    assert outcome.code == 0 and not outcome.error
    wanted = ["--steps INT", "--run.name"] if "ppo" in arguments else ["PPO and CURL jointly", "cpc_ppo", "ppo "]
    for words in wanted:
        assert words in outcome.out


@pytest.mark.parametrize("arguments", [[], ["train"]])
def test_too_little_shows_the_help(arguments: list[str], contrail: Contrail) -> None:
    outcome = contrail(*arguments)
    assert outcome.code == 2 and "recipes:" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["trian"], "no command 'trian': did you mean train?"),
        (["zzz"], "no command 'zzz': see contrail --help"),
        (["train", "curl_pp"], "no recipe 'curl_pp': did you mean curl_ppo?"),
        (
            ["train", "zzz"],
            "there are a2c, clone, cpc_ppo, curl_ppo, curl_trpo, impala, ppo, recurrent_ppo, trpo, or my_file.py:f",
        ),
        (["evaluate", "nowhere", "--episodes", "0"], "--episodes is 0, wanted at least 1"),
        (["evaluate", "no/where"], "there is no run no/where"),
        (["resume", "no/where"], "there is no run no/where"),
        (["resume", "/"], "/ is not a run: it has no experiment.json"),
        (["train", "nowhere.py:f"], "no recipe file nowhere.py: give an existing file as my_file.py:function"),
    ],
)
def test_a_command_that_makes_no_sense(arguments: list[str], sentence: str, contrail: Contrail) -> None:
    outcome = contrail(*arguments)
    assert outcome.code == 2
    assert sentence in outcome.sentence


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--stepss", "3"], ["--stepss", "Perhaps you meant", "--steps INT"]),
        (["--steps", "many"], ["--steps", "'many'"]),
        (["--steps"], ["Missing value for argument '--steps'"]),
        (["again"], ["Unrecognized options: again"]),
    ],
)
def test_an_unknown_flag_names_the_nearest(flags: list[str], words: list[str], contrail: Contrail) -> None:
    outcome = contrail("train", "ppo", *flags)
    assert outcome.code == 2 and "Traceback" not in outcome.error
    assert all(word in outcome.error for word in words)


@pytest.mark.parametrize(
    ("recipe", "flags", "sentence"),
    [
        ("ppo", ["--env", "CartPole-v9"], 'environment "CartPole-v9" is not registered; did you mean "CartPole-v1"?'),
        ("ppo", ["--env", "no.such:X-v0"], 'environment "no.such:X-v0" needs the module "no.such"'),
        ("ppo", ["--env", "tests.cluster.fualty:Faulty-v0"], 'did you mean "tests.cluster.faulty"?'),
        ("ppo", ["--env", "actor.envs:StaticRecall-v0"], 'did you mean "actors"?'),
        ("ppo", ["--env", "tests.cluster.broken:X-v0"], '"tests.cluster.broken" cannot be imported: ZeroDivisionError'),
        ("ppo", ["--env", f"{FAULTY}:Fualty-v0"], 'is not registered; did you mean "Faulty-v0"?'),
        ("ppo", ["--env", f"{FAULTY}:TupleObservation-v0"], "observation space Tuple(Discrete(2), Discrete(3)) has no"),
        ("ppo", ["--env", f"{FAULTY}:TextObservation-v0"], "supported are Box, Discrete, MultiDiscrete, MultiBinary"),
        ("ppo", ["--env", f"{FAULTY}:DictAction-v0"], "is a Dict; flatten it into one of Box, Discrete or"),
        ("curl_ppo", ["--env", "CartPole-v1"], "encoder reads one image (C, H, W); the observation has {'observation"),
        ("curl_ppo", ["--env", f"{FAULTY}:SmallImage-v0"], "an image of (4, 30, 30) is too small for this encoder"),
        ("curl_ppo", ["--exponent", "0.6"], "are about the past: give --history"),
        ("curl_ppo", ["--no-fresh-contrast"], "are about the past: give --history"),
        ("ppo", ["--steps", "0"], "steps is 0, wanted at least 1"),
        ("ppo", ["--topology.actors", "3"], "4 environments do not divide over 3 actors: change --envs or"),
        ("ppo", ["--topology.learners", "2"], "2 learners in one process: leave out --topology.local"),
        ("ppo", ["--topology.gpus-per-learner", "99"], "--topology.gpus-per-learner 99: this machine has"),
    ],
)
def test_an_experiment_that_cannot_run_leaves_no_folder(
    recipe: str, flags: list[str], sentence: str, contrail: Contrail
) -> None:
    outcome = contrail.train(recipe, *flags)
    assert outcome.code == 2
    assert sentence in outcome.sentence
    assert not contrail.runs.exists()


GOOD = "from dataclasses import replace\nfrom recipes.ppo import ppo\nfrom cluster.experiment import Topology\n"


@pytest.mark.parametrize(
    ("text", "function", "sentence"),
    [
        ("import nosuchthing", "f", "cannot be imported: ModuleNotFoundError: No module named 'nosuchthing' ("),
        ("\n1 / 0", "f", "own_recipe.py, line 2)"),
        ("def f(:", "f", "cannot be imported: SyntaxError: invalid syntax (own_recipe.py, line 1)"),
        ("def first(): ...\ndef other(): ...", "frist", "has no function 'frist'; did you mean"),
        ("def first(): ...\ndef other(): ...", "xyz", "has no function 'xyz'; functions in it: first, other"),
        ("def first(): ...", "", "alone is no recipe; functions in it: first"),
        ("x = 1", "x", "has no function 'x'; functions in it: none"),
        ("def f(*, topology: int = 1): return 3", "f", "returned int: let it return an Experiment"),
        ("def f():\n    raise ValueError('not yet')", "f", "own_recipe.py:f: not yet ("),
        (
            "def f():\n    b'\\xff'.decode()",
            "f",
            "own_recipe.py:f: UnicodeDecodeError: 'utf-8' codec can't",
        ),
        ("def f():\n    return {}['x']", "f", "own_recipe.py:f: KeyError: 'x' ("),
        ("def f(*, x: 'Nothing' = 1): ...", "f", "has an annotation that stands for nothing: name 'Nothing'"),
        ("def f(*, run: int = 1): ...", "f", "has a flag `run`, where the run's own options are: rename it"),
        (
            GOOD + "def f(): return replace(ppo(), envs=4)",
            "f",
            "draws 8 windows of 33 rows a step, but blocks of 32 rows of 4 environments hold 4: it would never be",
        ),
        (
            GOOD + "from learners.objectives.curl import Curl\nfrom learners.gradient import Gradient\n"
            "def f(): return replace(ppo(), updates=(Gradient({'fresh': Curl()}),))",
            "f",
            "changes images, and the observation has only",
        ),
    ],
)
def test_a_recipe_file_that_is_none(
    text: str, function: str, sentence: str, contrail: Contrail, tmp_path: Path
) -> None:
    (tmp_path / "own_recipe.py").write_text(text)
    outcome = contrail("train", f"{tmp_path}/own_recipe.py" + (f":{function}" if function else ""))
    assert outcome.code == 2
    assert sentence in outcome.sentence


def test_a_recipe_file_may_not_pass_for_another_module(contrail: Contrail, tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("def f(): ...")
    assert "bears the name of another module" in contrail("train", f"{tmp_path}/random.py:f").sentence


def test_a_recipe_file_finds_what_lies_beside_it(contrail: Contrail, tmp_path: Path) -> None:
    (tmp_path / "own_parts.py").write_text(GOOD)
    text = "from own_parts import Topology, ppo\n" + "def f(*, steps: int = 64, topology: Topology = Topology()):\n"
    (tmp_path / "own_recipe.py").write_text(text + "    return ppo(steps=steps, envs=4, rows=16, topology=topology)")
    local = ["--topology.local", "--run.folder", contrail.runs]
    assert contrail("train", f"{tmp_path}/own_recipe.py:f", *local).code == 0
    (run,) = contrail.runs.iterdir()
    assert run.name.startswith("own_recipe-CartPole-v1-")
    assert contrail("evaluate", run, "--episodes", 2).code == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, finished; tests take copies."""
    from cluster.cli import run
    from tests.cluster.commands import SMALL

    folder = tmp_path_factory.mktemp("trained")
    assert run(["train", "ppo", *SMALL, "--steps", "64", "--run.folder", str(folder), "--run.name", "run"]) == 0
    return folder / "run"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_run_folder_that_exists_is_left_alone(trained: Path, contrail: Contrail) -> None:
    contrail.runs = trained.parent
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    outcome = contrail.train("ppo")
    assert outcome.code == 2
    assert f'exists already: choose another name, or continue this run with "contrail resume {trained}"' in (
        outcome.sentence
    )
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}


def test_runs_without_a_name_do_not_meet(contrail: Contrail) -> None:
    for _ in range(3):
        outcome = contrail.train("ppo", "--steps", 16, "--run.name", "")
        assert outcome.code == 0
    assert len(list(contrail.runs.iterdir())) == 3


@pytest.mark.parametrize("command", ["resume", "evaluate"])
@pytest.mark.parametrize(
    ("damage", "code", "sentence"),
    [
        ("no checkpoint", 2, "has no checkpoint: it ended before its first one, start a new run"),
        ("tensors cut short", 1, "is damaged"),
        ("values are no JSON", 1, "is damaged"),
        ("values lack the version", 1, "('version'): remove it to use the checkpoint before it"),
        ("another model", 2, "does not fit the model"),
        ("experiment cut short", 2, "experiment.json cannot be read"),
        ("experiment lacks the recipe", 2, "experiment.json is damaged ('recipe'): start a new run"),
        ("recipe is gone", 2, "no recipe file /nowhere.py"),
    ],
)
def test_a_damaged_run(command: str, damage: str, code: int, sentence: str, copy: Path, contrail: Contrail) -> None:
    spoil(copy, damage)
    outcome = contrail(command, copy)
    assert outcome.code == code
    assert sentence in outcome.sentence
    assert not segments_folders(copy)


def spoil(run: Path, damage: str) -> None:
    newest, experiment = RunFolder(run).latest(), run / "experiment.json"
    content = experiment.read_text()
    if damage == "no checkpoint":
        shutil.rmtree(newest)
    elif damage == "tensors cut short":
        (newest / "tensors.safetensors").write_bytes((newest / "tensors.safetensors").read_bytes()[:-100])
    elif damage == "values are no JSON":
        (newest / "values.json").write_text("{")
    elif damage == "values lack the version":
        (newest / "values.json").write_text('{"steps": 64}')
    elif damage == "another model":
        tensors, values = checkpoint.load(newest)
        checkpoint.save(newest, {f"{name}x": tensor for name, tensor in tensors.items()}, values)
    elif damage == "experiment cut short":
        experiment.write_text(content[:-20])
    elif damage == "experiment lacks the recipe":
        experiment.write_text("{}")
    elif damage == "recipe is gone":
        experiment.write_text(json.dumps(json.loads(content) | {"recipe": "/nowhere.py:f"}))


def test_evaluation_prints_few_digits_and_leaves_all_of_them(copy: Path, contrail: Contrail) -> None:
    outcome = contrail("evaluate", copy, "--episodes", 3, "--seed", 5, "--sample")
    assert outcome.code == 0
    numbers = json.loads((copy / "evaluation.json").read_text())
    assert (numbers["episodes"], numbers["seed"], numbers["greedy"]) == (3, 5, False)
    assert len(numbers["returns"]) == 3
    assert sum(numbers["returns"]) / 3 == pytest.approx(numbers["eval/mean_reward"])
    assert numbers["checkpoint"] == RunFolder(copy).latest().name
    assert outcome.out.startswith("sampled evaluation: mean return ")
    again = contrail("evaluate", copy, "--episodes", 3, "--seed", 5, "--sample")
    assert again.out == outcome.out


def test_a_traceback_is_shown_to_those_who_ask(contrail: Contrail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRAIL_TRACEBACK", "1")
    assert "Traceback" in contrail("train", "zzz").error
