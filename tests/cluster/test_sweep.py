"""Sweeps: which runs there are, how they are, what is decided about them; and one by Ray Tune, stopped and resumed."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.condition import Condition, Phase
from cluster.experiment import ExperimentError
from cluster.lock import holding
from cluster.run_folder import FolderTaken, RunFolderError
from cluster.sweep_folder import Planned, SweepFolder, locked, settled, state, stop_run
from cluster.sweep_grid import grouped, planned
from cluster.sweep_options import SweepOptions
from cluster.sweep_table import Looks, write
from cluster.vitals import of_this_process
from tests.cluster.commands import SMALL, Contrail, end, finish, start, wait_until
from tests.cluster.test_pages import Board

RECIPE = """
from cluster.experiment import Experiment
from recipes.ppo import ppo


def mine(
    *, sizes: tuple[int, ...] = (8,), betas: tuple[float, float] = (0.9, 0.99), seed: int = 1, word: str = ""
) -> Experiment:
    return ppo(seed=seed)
"""


def runs_of(line: str, recipe: str = "ppo") -> list[Planned]:
    return planned(recipe, grouped(line.split()))


def sweep_of(path: Path, *names: str, steps: int = 1000) -> SweepFolder:
    """A sweep whose runs are called by their lr and seed, "0.1 1"."""
    runs = []
    for name in names:
        lr, seed = map(float, name.split())
        runs.append(Planned(name.replace(" ", ","), ["--lr", name], {"lr": lr, "seed": seed}, steps))
    sweep = SweepFolder(path, "ppo", path, runs)
    sweep.save({})
    return sweep


def leave(sweep: SweepFolder, run: str, phase: Phase, *rows: dict[str, Any], why: str = "") -> Path:
    """A run as it ended, with these metrics."""
    path = sweep.path / run
    (path / "checkpoints").mkdir(parents=True)
    (path / "experiment.json").write_text("{}")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    driver = of_this_process(rate=None, unit="", runs=True)
    Condition("", phase, why, 5, 9, None, 0.0, 0.0, time.time(), 3.0, [driver]).write(path)
    return path


def returned(step: int, value: float, when: float = 0.0) -> dict[str, Any]:
    return {"step": step, "time": when, "rollout/ep_rew_mean": value}


def test_every_combination_is_a_run_and_its_name_says_what_differs() -> None:
    runs = runs_of("--lr 1e-3 3e-4 --steps 64 --topology.max_version_lag 0 1 --seed 7")
    assert [run.name for run in runs] == [
        f"lr={lr},topology.max-version-lag={lag}" for lr in ("0.001", "0.0003") for lag in (0, 1)
    ]
    assert runs[1].arguments == ("--lr", "1e-3", "--steps", "64", "--topology.max_version_lag", "1", "--seed", "7")
    assert runs[1].settings == {"lr": 0.001, "topology.max-version-lag": 1} and runs[1].steps == 64


def test_names_are_safe_and_switches_are_true_or_false() -> None:
    runs = runs_of("--env actors.envs:JitterCode-v0 actors.envs:StaticRecall-v0 --steps=64", "cpc_ppo")
    assert [run.name for run in runs] == ["env=actors.envs-JitterCode-v0", "env=actors.envs-StaticRecall-v0"]
    runs = runs_of("--anneal true False --steps 64 32 --topology.local true false")
    assert runs[0].arguments == ("--anneal", "--steps", "64", "--topology.local")
    assert runs[-1].arguments == ("--no-anneal", "--steps", "32", "--topology.no-local")
    assert runs[-1].name == "anneal=False,steps=32,topology.local=False"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--lr 1e-3", "nothing differs between runs: give a flag several values"),
        ("1e-3 --lr 1", "'1e-3' belongs to no flag"),
        ("--lr 1 --seed 1 2 --lr 2", "--lr is given 2 times: give all its values after one"),
        ("--lr 1e-3 0.001", "2 runs would be called lr=0.001: is a value given twice?"),
        ("--run.keep 1 2", "--run.keep has 2 values, but is the same for all runs"),
        ("--anneal true perhaps", "--anneal perhaps: wanted true or false"),
        ("--envs 4 6 --topology.actors 4", "6"),
        ("--env CartPole-v1 Nowhere-v0", "Nowhere"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(line: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        runs_of(line)


def test_a_flag_that_takes_several_values_itself_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "own_lists.py").write_text(RECIPE)
    recipe = f"{tmp_path / 'own_lists.py'}:mine"
    with pytest.raises(ExperimentError, match="'8 16' may be one setting or 2: such a flag cannot be swept"):
        runs_of("--sizes 8 16 --seed 1 2", recipe)
    runs = runs_of("--betas 0.9 0.999 --sizes 8 --seed 1 2", recipe)
    assert [run.name for run in runs] == ["seed=1", "seed=2"], "a pair of two is one value"
    with pytest.raises(ExperimentError, match="aaa is too long a name for a run's folder"):
        runs_of(f"--word b {'a' * 300}", recipe)


def test_a_bad_value_is_refused_as_by_train(contrail: Contrail) -> None:
    pytest.importorskip("pandas")
    alone = contrail("train", "ppo", "--lr", "much")
    swept = contrail("sweep", "ppo", "--lr", "1e-3", "much", "--run.folder", contrail.runs)
    assert alone.code == swept.code == 2 and "much" in swept.error
    assert alone.error == swept.error and not contrail.runs.exists()
    outcome = contrail("sweep", "ppo", "--seed", "1", "2", "--sweep.cpus", "1000")
    assert "want 1000, this machine has" in outcome.sentence
    late = ("--sweep.scheduler", "asha", "--sweep.grace-steps", "100", "--steps", "100")
    outcome = contrail("sweep", "ppo", "--seed", "1", "2", *late, "--run.folder", contrail.runs)
    assert outcome.code == 2 and "is not before the end" in outcome.sentence and not contrail.runs.exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (SweepOptions(cpus=0.0), "--sweep.cpus is 0.0, wanted more than 0"),
        (SweepOptions(reduction=1.0), "--sweep.reduction is 1.0, wanted more than 1"),
        (SweepOptions(grace_steps=-1), "--sweep.grace-steps is -1, wanted at least 0"),
        (SweepOptions(gpus=99.0), "--sweep.gpus 99 and 1 at a time want 99, this machine has"),
    ],
)
def test_numbers_of_a_sweep(options: SweepOptions, text: str) -> None:
    with pytest.raises(ExperimentError, match=text):
        options.checked()
    with pytest.raises(ExperimentError, match="is not before the end of runs, at 100"):
        SweepOptions(grace_steps=100).grace(100)
    assert SweepOptions().grace(900) == 100 and SweepOptions(cpus=0.25, parallel=2).at_a_time == 2


def test_a_run_is_as_its_folder_tells(tmp_path: Path) -> None:
    names = ["1 1", "1 2", "1 3", "2 1", "2 2", "2 3"]
    sweep = sweep_of(tmp_path / "sweep", *names)
    for seed, last in ((1, 10.0), (2, 20.0)):
        leave(sweep, f"1,{seed}", "finished", returned(5, last), {"step": 5, "time": 0.0, "eval/mean_reward": 3 * last})
    stop_run(leave(sweep, "2,1", "stopped", returned(5, 1.0)), "asha", 5000)
    leave(sweep, "2,2", "failed", why="driver: NotFinite: loss")
    sweep.output("2,3").parent.mkdir()
    sweep.output("2,3").write_text("contrail: no such thing\n  a note\n")
    rows = Looks(sweep).rows({}, {"1,1": 60.0})
    assert [row.state for row in rows] == [
        "finished",
        "finished",
        "waiting",
        "stopped at 5,000 steps by asha",
        "failed: driver: NotFinite: loss",
        "failed: no such thing",
    ]
    assert [run.name for run in sweep.runs if settled(sweep, run.name)] == ["1,1", "1,2", "2,1"]
    write(sweep, rows, "all")
    page = (sweep.path / "results.md").read_text()
    assert "| 1.0 | 1.0 | 5 | 10.00 | 30.00 | 1:00 | finished |" in page
    assert "| 1.0 | 2 of 3 | 15.00 +- 7.07 | 45.00 +- 21.21 |" in page and "| 2.0 | 0 of 3 |  |  |" in page
    first = json.loads((sweep.path / "results.jsonl").read_text().splitlines()[0])
    assert (first["return"], first["evaluation"], first["seconds"]) == (10.0, 30.0, 60.0)
    assert Looks(sweep).rows({}, {"1,1": 5.0})[0].seconds == 65.0, "earlier starts count"
    assert "its trial died" in Looks(sweep).rows({"1,3": "its trial died"}, {})[2].state


def test_a_run_goes_on_from_its_checkpoint_or_starts_anew(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "sweep", "1 1")
    (run,), path = sweep.runs, leave(sweep_of(tmp_path / "sweep", "1 1"), "1,1", "failed")
    (path / "checkpoints" / "000000000005").mkdir()
    assert sweep.command(run) == ["resume", str(path)]
    with holding(path):
        assert locked(path)
    assert not locked(path)
    (path / "checkpoints" / "000000000005").rmdir()
    assert sweep.command(run) == ["train", "ppo", "--lr", "1 1", "--run.name", str(path)] and not path.exists()


def test_a_folder_goes_on_with_its_own_sweep_only(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "sweep", "1 1", "1 2")
    again, _ = SweepFolder.open(tmp_path / "sweep")
    assert again == sweep
    sweep_of(tmp_path / "more", "1 1", "1 2", "1 3")
    SweepFolder(sweep.path, "ppo", tmp_path, SweepFolder.open(tmp_path / "more")[0].runs).check_goes_on()
    with pytest.raises(FolderTaken, match="is another sweep, it has the run 1,2 with other flags"):
        SweepFolder(sweep.path, "ppo", tmp_path, sweep.runs[:1]).check_goes_on()
    with pytest.raises(FolderTaken, match="exists already and is no sweep"):
        SweepFolder(tmp_path, "ppo", tmp_path, sweep.runs).check_goes_on()
    with pytest.raises(RunFolderError, match=r"is no sweep: it has no sweep\.json"):
        SweepFolder.open(tmp_path)


def test_asha_goes_on_from_what_earlier_starts_have_seen(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    from types import SimpleNamespace

    from cluster.sweep_tune import NOBODY, Halving

    sweep = sweep_of(tmp_path / "sweep", "1 1", "1 2", "1 3", "1 4")
    leave(sweep, "1,1", "finished", returned(50, 100.0), returned(120, 5.0, 1.0), returned(999, 9.0, 2.0))
    leave(sweep, "1,2", "stopped", returned(130, 7.0, 3.0))
    for run in ("1,3", "1,4"):
        leave(sweep, run, "training")

    def told(run: str, step: int, value: float) -> str:
        trial: Any = SimpleNamespace(trial_id=f"tune-{run}-{step}", config={"run": run})
        assert halving.on_trial_result(NOBODY, trial, {"env_steps": step, "return": value}) == "CONTINUE"
        return state(sweep, run)

    halving = Halving(sweep, grace=100, reduction=2.0)
    assert "asha" not in told("1,3", 99, 0.0), "below the first rung"
    assert told("1,4", 110, 5.5) == "stopped at 110 steps by asha", "worse than half of 5 and 7"
    assert "asha" not in told("1,3", 110, 6.5)
    assert settled(sweep, "1,4") and not settled(sweep, "1,3")


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_sweep_that_was_stopped_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    flags = ["--lr", "1e-3", "3e-4", "--seed", 1, 2, "--steps", 2000, *SMALL, "--sweep.name", "all"]
    names = [f"lr={lr},seed={seed}" for lr in ("0.001", "0.0003") for seed in (1, 2)]
    sweep, first = tmp_path / "runs" / "all", tmp_path / "runs" / "all" / names[0]
    process = start(tmp_path, "sweep", "ppo", *flags)
    try:
        wait_until(lambda: (first / "evaluation.json").exists(), "the first run is evaluated", seconds=400)
        process.send_signal(signal.SIGINT)
        outcome = finish(process)
    finally:
        end(process)
    assert outcome.code == 130 and f"continue with: contrail sweep --resume {sweep}" in outcome.out, outcome
    assert not [run for run in names if locked(sweep / run)], "no process is left behind"
    before = (first / "metrics.jsonl").stat()
    process = start(tmp_path, "sweep", "ppo", *flags)
    try:
        process.wait(700)
        outcome = finish(process)
    finally:
        end(process)
    assert outcome.code == 0, outcome
    assert "TuneError" not in outcome.error and "Trial" not in outcome.out, "Tune is quiet"
    rows = [json.loads(line) for line in (sweep / "results.jsonl").read_text().splitlines()]
    assert [row["run"] for row in rows] == names and {row["state"] for row in rows} == {"finished"}
    assert all(row["steps"] >= 2000 and row["evaluation"] > 0 for row in rows)
    assert (first / "metrics.jsonl").stat() == before, "what is finished is not touched"
    assert not (sweep / "tune").exists() and "| 0.001 | 2 of 2 |" in (sweep / "results.md").read_text()
    wanted = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 9, "startIndex": 0}
    sessions = Board(sweep).ask("hparams", "/session_groups", post=wanted)["sessionGroups"]
    shown = {each["name"]: (each["hparams"]["lr"], each["hparams"]["seed"]) for each in sessions}
    assert shown == {f"{row['run']}/events": (row["settings"]["lr"], row["settings"]["seed"]) for row in rows}
