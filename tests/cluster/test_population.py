"""Population based training: who takes over from whom, what becomes of it, and a death in the middle."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster import checkpoints, sweep_population
from cluster.experiment import ExperimentError
from cluster.lock import holding
from cluster.run_folder import RunFolder
from cluster.standing import FILE
from cluster.sweep_folder import SweepFolder, state
from cluster.sweep_grid import changed, grouped, planned
from cluster.sweep_lineage import Lineage
from cluster.sweep_population import RETURN, Population, _near, check_members
from cluster.sweep_table import Looks, write
from cluster.sweep_tune import Trial
from tests.cluster.commands import SMALL, Contrail


def sweep_of(folder: Path, *flags: str) -> SweepFolder:
    sweep = SweepFolder(folder / "sweep", "ppo", folder, planned("ppo", grouped([*SMALL, *flags])))
    sweep.save({})
    return sweep


def last_return(sweep: SweepFolder, run: str, value: float) -> None:
    """Let this have been a run's return, without a word of luck."""
    with open(sweep.path / run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 1, "time": 0.0, "rollout/ep_rew_mean": value}) + "\n")


def test_a_run_stops_where_it_was_told_to_once(contrail: Contrail) -> None:
    outcome = contrail.train("ppo", "--steps", 300, "--run.until", 100)
    run = contrail.runs / "run"
    assert outcome.code == 0 and "stopped; continue with: contrail resume" in outcome.out
    first = int(RunFolder(run).latest().name)
    assert 100 <= first < 200 and not (run / "evaluation.json").exists()
    assert json.loads((run / "processes.json").read_text())["why"] == "at --run.until 100"
    outcome = contrail("resume", run)
    assert outcome.code == 0 and "stopped" not in outcome.out and (run / "evaluation.json").exists()


def test_the_worst_goes_on_from_the_best_and_a_death_in_between_loses_nothing(
    tmp_path: Path, contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = sweep_of(tmp_path, "--lr", "1e-3", "3e-4", "--seed", "1", "2", "--steps", "200", "--no-anneal")
    names = [run.name for run in sweep.runs]
    population = Population(sweep, 100)
    assert population.begin() == names
    for run in sweep.runs:
        assert contrail(*sweep.command(run, population.until)).code == 0
    for value, name in enumerate(names, start=1):
        assert state(sweep, name) == "paused"
        last_return(sweep, name, float(value))
    (take,) = population.look() or ()
    first = sweep.path / names[0]
    (first / FILE).write_text("{}")
    there: list[bool] = []
    own_log = first / "replay" / "log"
    monkeypatch.setattr(sweep_population, "remove_orphans", lambda: there.append(own_log.is_dir()))
    assert (take.run, take.source, take.value, take.source_value) == (names[0], names[3], 1.0, 4.0)
    assert take.after["lr"] != 3e-4 and "seed" not in take.after
    # What was decided is carried out by the next start, and once more if it dies before it can say so.
    for applied in (0, 0):
        lineage = Lineage.read(sweep.path)
        assert lineage is not None and lineage.until == 200
        Lineage(lineage.until, lineage.settings, lineage.taken, applied).write(sweep.path)
        assert Population(sweep, 100).begin() == names
    assert there == [True, True], "what it left in shared memory goes to the log that is removed then"
    assert not (first / FILE).exists(), "its best is gone, another's checkpoint may have the name"
    own, other = (checkpoints.read(RunFolder(sweep.path / name).latest())[0] for name in (names[0], names[3]))
    assert {name for name in other if name not in own} == {"random/0"}, "random numbers are its own"
    assert all(torch.equal(own[name], other[name]) for name in own)
    for run in sweep.runs:
        assert contrail(*sweep.command(run, 200)).code == 0, run
    assert {state(sweep, name) for name in names} == {"finished"}
    assert population.look() is None and not population.begin()
    shown_everywhere(sweep, names[0], take.after["lr"])


def paused(sweep: SweepFolder, run: str, steps: int, value: float | None = None) -> None:
    """Let a run have come so far, with a return then or without."""
    folder = RunFolder(sweep.path / run)
    folder.path_for(steps).mkdir(parents=True)
    (folder.path / "experiment.json").touch()
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": steps, "time": 0.0} | ({} if value is None else {RETURN: value})) + "\n")


def test_between_two_looks_all_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = sweep_of(tmp_path, "--lr", "1e-3", "3e-4", "--steps", "1000")
    first, second = (run.name for run in sweep.runs)
    paused(sweep, first, 250, 1.0)
    assert Population(sweep, 100).until == 300, "one has come further without looks"
    paused(sweep, first, 300, 1.0)
    paused(sweep, second, 430, 2.0)
    population = Population(sweep, 100)
    assert population.until == 300 and population.look() and population.until == 500


def test_returns_are_those_since_the_look_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = sweep_of(tmp_path, "--lr", "1e-3", "3e-4", "1e-4", "--steps", "1000")
    names = [run.name for run in sweep.runs]
    population = Population(sweep, 100)
    for name in names:
        paused(sweep, name, 120, 5.0)
    assert population.look() == [], "nobody is better"
    for name, value in zip(names, (None, 3.0, 4.0), strict=True):
        paused(sweep, name, 200, value)
    (take,) = population.look() or ()
    assert (take.run, take.source, take.value, take.source_value) == (names[1], names[2], 3.0, 4.0)


def test_a_run_that_is_at_its_end_still_has_episodes_to_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = sweep_of(tmp_path, "--lr", "1e-3", "3e-4", "--steps", "1000")
    first, second = (run.name for run in sweep.runs)
    population = Population(sweep, 1000)
    paused(sweep, first, 1000)
    monkeypatch.setattr(population, "_describe", lambda name: None)
    assert population.begin() == [first, second]


def test_a_run_that_an_earlier_start_brought_to_the_look_skips_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(tmp_path, "--lr", "1e-3", "3e-4", "--steps", "1000")
    started: list[str] = []
    trial = object.__new__(Trial)
    trial.sweep, trial.planned, trial.process = sweep, sweep.runs[0], None
    trial.path = sweep.path / trial.planned.name
    monkeypatch.setattr(trial, "_start", lambda: started.append(trial.planned.name))
    for steps, until, over in ((90, 100, False), (100, 100, True), (110, 0, False), (1000, 100, False)):
        paused(sweep, trial.planned.name, steps)
        trial.config = {"until": until}
        with holding(trial.path):
            assert not trial._over() and not started, "it is still being trained"
        assert trial._over() == over and bool(started) != over
        started.clear()


def shown_everywhere(sweep: SweepFolder, run: str, lr: Any) -> None:
    rows = [json.loads(line) for line in (sweep.path / run / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/learning_rate"] for row in rows if "train/learning_rate" in row][-1] == pytest.approx(lr)
    described = json.loads((sweep.path / run / "experiment.json").read_text())
    assert described["parameters"]["lr"] == lr and described["parameters"]["seed"] == 1
    assert "takes over from" in described["taken_over"][0]
    events = b"".join(path.read_bytes() for path in (sweep.path / run / "events").iterdir())
    assert b"takes over from" in events and b"population/lr" in events
    write(sweep, Looks(sweep).rows({}, {}), "all")
    page = (sweep.path / "results.md").read_text()
    assert "## Taken over" in page and "lr 0.0003 -> " in page and "over seeds" not in page


def test_numbers_move_by_a_fifth_and_some_are_drawn_again() -> None:
    rng = random.Random(1)
    tried = [next(_near(10, [10, 1000], rng)) for _ in range(400)]
    assert set(tried) == {8, 12, 10, 1000} and 60 < tried.count(10) + tried.count(1000) < 140
    words = [list(_near("a", ["a", "b"], rng)) for _ in range(400)]
    assert 60 < sum(map(bool, words)) < 140, "a word stays, or is drawn again"


def test_what_the_recipe_refuses_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = sweep_of(tmp_path, "--gamma", "0.99", "0.9", "--minibatches", "1", "2")
    population = Population(sweep, 100)
    found = [
        population._explored(sweep.runs[0].name, {"gamma": 0.99, "minibatches": 1}, random.Random(seed))
        for seed in range(12)
    ]
    assert {each["gamma"] for each in found} <= {0.99, 0.9, 0.99 * 0.8} and len({*map(str, found)}) > 2
    assert all(each["minibatches"] >= 1 for each in found)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--seed", "1", "2"), "differs in seeds only"),
        (("--rows", "16", "32"), "rows=32 cannot go on from a checkpoint of rows=16"),
        (("--lr", "1", "2", "--run.until", "9"), "--run.until is given"),
    ],
)
def test_runs_that_are_no_population(flags: tuple[str, ...], text: str, tmp_path: Path) -> None:
    small = SMALL[:1] if "--rows" in flags else SMALL
    runs = planned("ppo", grouped([*small, *flags]))
    with pytest.raises(ExperimentError, match=text):
        check_members(SweepFolder(tmp_path, "ppo", tmp_path, runs))


def test_flags_with_other_values() -> None:
    given = ["--lr", "1e-3", "--no-anneal", "--store", "a", "--run.until=5"]
    assert changed(given, {"lr": 0.5, "anneal": True, "run.until": 9}) == [
        *("--store", "a", "--lr", "0.5", "--anneal", "--run.until", "9")
    ]
