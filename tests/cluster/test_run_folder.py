import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.commands import _new_folder
from cluster.run import RunOptions
from cluster.run_folder import RunFolder, RunFolderError, default_name, git_commit
from recipes.ppo import ppo


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_create_makes_the_folders_under_runs(runs: Path) -> None:
    run = RunFolder.create("first", runs=runs)
    assert run.path == runs / "first"
    assert {path.name for path in run.path.iterdir()} == {"events", "replay", "checkpoints", "logs"}


def test_create_takes_a_path_as_it_is(tmp_path: Path, runs: Path) -> None:
    assert RunFolder.create(tmp_path / "elsewhere" / "run", runs=runs).path == tmp_path / "elsewhere" / "run"


def test_create_refuses_a_run_that_exists_and_says_how_to_go_on(runs: Path) -> None:
    RunFolder.create("first", runs=runs).path_for(100).mkdir()
    with pytest.raises(
        RunFolderError, match=r'first exists already: choose another name, or .*"contrail resume .*first"'
    ):
        RunFolder.create("first", runs=runs)


def test_of_many_that_begin_at_once_each_gets_a_name_of_its_own(runs: Path) -> None:
    begin, options = threading.Barrier(8), RunOptions(folder=runs)

    def new() -> Path:
        begin.wait()
        return _new_folder("ppo", ppo(), options).path

    with ThreadPoolExecutor(8) as pool:
        made = [made.result() for made in [pool.submit(new) for _ in range(8)]]
    assert len(set(made)) == 8
    assert all({path.name for path in run.iterdir()} == {"events", "replay", "checkpoints", "logs"} for run in made)


def test_create_refuses_any_other_folder_that_holds_something_but_takes_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty").path == tmp_path / "empty"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(RunFolderError, match="full exists already: choose another name, or remove it"):
        RunFolder.create(tmp_path / "full")


def test_create_under_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot be made \(Not a directory\)"):
        RunFolder.create(tmp_path / "file" / "run")


def test_open_finds_a_run_by_path_and_by_name(runs: Path) -> None:
    run = RunFolder.create("first", runs=runs)
    run.save_experiment({})
    assert RunFolder.open("first", runs=runs) == run == RunFolder.open(run.path, runs=runs)


def test_open_names_the_nearest_run(runs: Path) -> None:
    RunFolder.create("curl_ppo-one", runs=runs).save_experiment({})
    RunFolder.create("ppo-two", runs=runs).save_experiment({})
    for wanted in ("curl_ppo_one", runs / "curl_ppo_one"):
        with pytest.raises(RunFolderError, match=r"there is no run .*did you mean .*curl_ppo-one\?"):
            RunFolder.open(wanted, runs=runs)
    with pytest.raises(RunFolderError, match=r"the newest in .*runs is ppo-two"):
        RunFolder.open("zzzz", runs=runs)


def test_open_refuses_a_folder_that_is_no_run(tmp_path: Path, runs: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is not a run: it has no experiment\.json; .* holds none"):
        RunFolder.open(tmp_path, runs=runs)


def test_experiment_comes_back_with_its_circumstances(runs: Path) -> None:
    run = RunFolder.create("first", runs=runs)
    run.save_experiment({"recipe": "ppo", "arguments": {"seed": 1, "folder": Path("x")}})
    values = run.load_experiment()
    assert values["recipe"] == "ppo"
    assert values["arguments"] == {"seed": 1, "folder": repr(Path("x"))}
    assert values["versions"]["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert "torch" in values["versions"]
    assert values["host"]["cores"] >= 1
    assert values["argv"] == sys.argv
    assert not list(run.path.glob("*.partial"))


def test_a_damaged_experiment_is_a_sentence(runs: Path) -> None:
    run = RunFolder.create("first", runs=runs)
    for content in (b"{", b"\xff\xfe", b"[1]"):
        (run.path / "experiment.json").write_bytes(content)
        with pytest.raises(RunFolderError, match=r"experiment\.json (cannot be read|is damaged) .*start a new run"):
            run.load_experiment()


def test_checkpoints_sort_by_step_and_only_the_newest_are_kept(runs: Path) -> None:
    run = RunFolder.create("first", runs=runs)
    with pytest.raises(RunFolderError, match="has no checkpoint"):
        run.latest()
    for step in (9_000, 100, 20_000):
        run.path_for(step).mkdir()
    (run.path / "checkpoints" / "000000999999.partial").mkdir()
    assert run.latest() == run.path_for(20_000)
    run.keep_last(2)
    assert run.checkpoints() == [run.path_for(9_000), run.path_for(20_000)]
    run.keep_last(0)
    assert run.checkpoints() == [run.path_for(20_000)]


def test_default_name_is_safe_as_a_folder() -> None:
    name = default_name("my/recipe.py:curl", "ALE/Breakout-v5")
    assert name.startswith("my-recipe.py-curl-ALE-Breakout-v5-20")
    assert "/" not in name


def test_commit_says_whether_files_differ(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None

    def git(*arguments: str) -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *author, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "file").write_text("1")
    git("init")
    git("add", "file")
    git("commit", "-m", "first")
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == commit + "+changes"
