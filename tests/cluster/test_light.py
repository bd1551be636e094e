"""What commands import: those that only look at files start without torch and Ray, a run in one process without Ray."""

import importlib
import subprocess
import sys

import pytest

from cluster.mistakes import MISTAKES, TROUBLES, is_mistake
from cluster.recipe import find_recipe
from cluster.shipped import describe_recipes, recipe_names
from tests.cluster.commands import HOUSE, SMALL, Contrail

PROGRAM = """
import sys
from cluster.cli import run
code = run(sys.argv[1:])
print("imported:", *sorted({"ray", "torch", "gymnasium", "wandb", "trackio"} & set(sys.modules)))
sys.exit(code)
"""


def imported(*arguments: object, code: int = 0) -> set[str]:
    """Which of the heavy packages a command imports in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("imported:").split())


@pytest.mark.parametrize("arguments", [["--help"], ["trian"], ["status", "no/where"], ["checkpoint", "no/where"]])
def test_help_and_mistakes_are_light(arguments: list[str]) -> None:
    assert imported(*arguments, code=0 if arguments == ["--help"] else 2) == set()


def test_a_run_in_one_process_does_without_ray_and_those_who_look_at_it_without_torch(contrail: Contrail) -> None:
    run = contrail.runs / "run"
    flags = ["--run.folder", contrail.runs, "--run.name", "run", "--steps", 64]
    assert imported("train", "ppo", *SMALL, *flags) == {"torch", "gymnasium"}
    assert imported("status", run) == imported("watch", run) == set()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("cluster.store", {"torch", "gymnasium"}), ("cluster.weights", {"torch"}), ("cluster.processes", {"tensorboard"})],
)
def test_processes_of_a_run_import_no_more_than_they_need(module: str, unwanted: set[str]) -> None:
    """All of them start at once, on as few cores as there are."""
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert unwanted.isdisjoint(done.stdout.split())


CHECKED = """
import sys
from cluster.commands import checked_spaces
from cluster.recipe import find_recipe
encoder = {"encoder": "small"} if sys.argv[1] == "curl_ppo" else {}
checked_spaces(find_recipe(sys.argv[1])(env="actors.envs:JitterCode-v0", **encoder).checked())
print("sympy" in sys.modules)
"""


@pytest.mark.parametrize("recipe", ["curl_ppo", "cpc_ppo"])
def test_a_model_is_checked_without_symbolic_mathematics(recipe: str) -> None:
    """Which torch imports, a second of every process, for some operations on tensors without values."""
    done = subprocess.run(
        [sys.executable, "-c", CHECKED, recipe], cwd=HOUSE, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("name", [*MISTAKES, *TROUBLES])
def test_every_mistake_is_an_error_that_there_is(name: str) -> None:
    module, _, kind = name.partition(":")
    error = getattr(importlib.import_module(module), kind)
    assert issubclass(error, Exception) and error.__module__ == module


def test_kinds_of_a_mistake_are_mistakes() -> None:
    from cluster.run_folder import FolderTaken

    assert is_mistake(FolderTaken("there")) and not is_mistake(ValueError("anything"))


def test_recipes_are_described_by_the_first_line_that_they_themselves_have() -> None:
    lines = describe_recipes().splitlines()[1:]
    assert [line.split()[0] for line in lines] == recipe_names() and len(lines) > 5
    for name, line in zip(recipe_names(), lines, strict=True):
        assert line.endswith(f" {(find_recipe(name).__doc__ or '').splitlines()[0]}")
