"""What a person sees of a run that somebody else started: alive, ended, failed or dead, from its folder alone."""

import fcntl
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from cluster.condition import Condition, Phase
from cluster.following import NewRows
from cluster.lock import held, holding
from cluster.logs import BEGINS, last_words
from cluster.metrics import Metrics
from cluster.standing import FILE
from cluster.vitals import Rate, Vitals, of_this_process
from tests.cluster.commands import FAULTY, Contrail


def condition(phase: Phase = "training", *, host: str = "", written: float = 0.0, every: float = 3.0) -> Condition:
    now = written or time.time()
    driver = Vitals("driver", "runs", host or platform.node(), 100, 650.0, "env steps/s", {}, 3 * 2**20, 0, now)
    seconds = {"wait": 3.0, "environment": 1.0}
    actor = Vitals("actor-0", "runs", host or platform.node(), 101, 32.5, "env steps/s", seconds, 2**21, 2, now)
    return Condition("ppo on X", phase, "", 250, 1000, 650.0, now - 60, now, now, every, (driver, actor))


@pytest.fixture
def run(contrail: Contrail) -> Path:
    """The folder of a run that nobody runs."""
    folder = contrail.runs / "run"
    (folder / "logs").mkdir(parents=True)
    (folder / "experiment.json").write_text("{}")
    (folder / "logs" / "actor-0.log").write_text("first\nout of cheese\n\n")
    return folder


@contextmanager
def driven(run: Path) -> Iterator[None]:
    """As if a driver was at work."""
    with holding(run) as free:
        assert free
        yield


def test_a_run_that_goes_on_shows_every_process(run: Path, contrail: Contrail) -> None:
    condition().write(run)
    with driven(run):
        outcome = contrail("status", run)
    assert outcome.code == 0 and not outcome.error
    title, verdict, progress, _, headings, driver, actor = outcome.out.splitlines()
    assert title == "ppo on X" and verdict.startswith("training, started 1:0")
    assert progress.startswith("env steps 250 of 1,000 (25%); 650 a second; last learner step 0:0")
    assert headings.split() == [
        "process",
        "state",
        "host",
        "pid",
        "rate",
        "mostly",
        "memory",
        "restarts",
        "last",
        "words",
    ]
    assert driver.split() == ["driver", "runs", platform.node(), "100", "650", "env", "steps/s", "3", "MiB", "0"]
    words = ["101", "32.5", "env", "steps/s", "wait", "75%", "2", "MiB", "2", "out", "of", "cheese"]
    assert actor.split() == ["actor-0", "runs", platform.node(), *words]


def test_what_limits_a_run_is_told_while_it_goes_on(run: Path, contrail: Contrail) -> None:
    replace(condition(), verdict="the learners limit it (80% of the learners' time)").write(run)
    with driven(run):
        assert contrail("status", run).out.splitlines()[3] == "the learners limit it (80% of the learners' time)"
    assert "the learners limit it" not in contrail("status", run).out


def test_a_dead_driver_is_told_at_once_on_its_machine_and_by_its_silence_elsewhere(
    run: Path, contrail: Contrail
) -> None:
    condition().write(run)
    outcome = contrail("status", run)
    assert outcome.code == 1 and "\nDIED while training, last heard of 0:0" in outcome.out
    assert outcome.out.count(" died ") == 1 and " ended " in outcome.out
    condition(host="elsewhere").write(run)
    assert contrail("status", run).code == 0
    condition(host="elsewhere", written=time.time() - 20).write(run)
    assert "DIED" in contrail("status", run).out


def test_those_who_look_neither_see_nor_stop_each_other_nor_a_resumption(run: Path) -> None:
    looking = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(looking, fcntl.LOCK_SH)  # somebody who looks, caught in the act
    assert not held(run)
    threading.Timer(0.05, os.close, [looking]).start()
    with holding(run) as free:
        assert free and held(run)
        with holding(run) as second:
            assert not second
    assert not held(run)


def test_processes_and_a_driver_that_are_silent_are_told(run: Path, contrail: Contrail) -> None:
    condition(written=time.time() - 100).write(run)
    with driven(run):
        outcome = contrail("status", run)
    assert outcome.code == 0
    assert "its driver has written nothing since 1:40 ago" in outcome.out and "runs, silent 1:40" in outcome.out


def test_only_the_driver_is_left_when_it_evaluates(run: Path, contrail: Contrail) -> None:
    condition("evaluating", written=time.time() - 100).write(run)
    with driven(run):
        driver, actor = contrail("status", run).out.splitlines()[-2:]
    assert "runs, silent" in driver and actor.split()[:2] == ["actor-0", "ended"]


def test_an_end_that_is_written_between_two_looks_is_no_death(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.status import look

    condition().write(run)

    def dies(self: Condition, folder: Path) -> bool:
        replace(self, phase="finished").write(folder)
        return False

    monkeypatch.setattr(Condition, "alive", dies)
    assert look(run)[0].phase == "finished"


def test_a_run_without_a_condition_is_a_sentence(run: Path, contrail: Contrail) -> None:
    for damaged in (None, "{", "[]", json.dumps({"processes": [], "of": 3})):
        if damaged is not None:
            (run / "processes.json").write_text(damaged)
        outcome = contrail("status", run)
        assert outcome.code == 2 and "run has no processes.json: its driver writes one" in outcome.sentence


def test_evaluations_that_cannot_be_read_are_a_line_of_the_status(run: Path, contrail: Contrail) -> None:
    condition("stopped").write(run)
    (run / FILE).write_text("{")
    outcome = contrail("status", run)
    assert outcome.code == 0 and f"{run / FILE} is damaged (" in outcome.out


def test_a_finished_run_says_so_and_the_watch_ends_with_it(contrail: Contrail) -> None:
    assert contrail.train("ppo", "--steps", 300).code == 0
    run = contrail.runs / "run"
    found = Condition.read(run)
    assert found is not None and found.phase == "finished" and found.steps >= 300 == found.of and found.moved
    assert [process.name for process in found.processes] == ["driver"]
    assert found.processes[0].memory > 2**20 and not list(run.glob("*.partial"))
    outcome = contrail("status", run)
    assert outcome.code == 0 and "\nfinished 0:0" in outcome.out and "continue" not in outcome.out
    watched = contrail("watch", run)
    title, numbers, *_, verdict, progress = watched.out.splitlines()
    assert watched.code == 0 and title == f"ppo on CartPole-v1, in {run}"
    assert numbers.startswith(f"env steps {found.steps} of 300 (100%)  env steps/s ") and "value loss" in numbers
    assert verdict.startswith("finished ") and progress.startswith("env steps ")
    assert contrail("resume", run).code == 0
    again = Condition.read(run)
    assert again is not None and again.phase == "finished" and again.steps == found.steps and not again.moved


def test_the_first_error_is_kept_and_told_until_the_run_goes_on(contrail: Contrail) -> None:
    outcome = contrail.train("ppo", "--env", f"{FAULTY}:FaultyRaise-v0", "--topology.actors", 2)
    run = contrail.runs / "run"
    first, *_, last = (run / "logs" / "error.txt").read_text().splitlines()
    sentence = outcome.sentence.removeprefix("contrail: ")
    assert first.endswith(f" driver: EnvironmentFailed: {sentence}")
    assert last == "traceback: logs/failure.log"
    told = contrail("status", run)
    assert told.code == 1 and told.out.splitlines()[1] == f"FAILED {first}" and "driver   failed" in told.out
    assert contrail("watch", run).code == 1
    (run / "logs" / "error.txt").unlink()
    assert f"FAILED driver: EnvironmentFailed: {sentence}" in contrail("status", run).out


def test_watching_sees_what_is_written_and_the_end(run: Path, contrail: Contrail) -> None:
    condition().write(run)
    alone = holding(run)
    assert alone.__enter__()

    def finish() -> None:
        with Metrics(run) as metrics:
            metrics.write(500, {"rollout/ep_rew_mean": 12.5})
        replace(condition("finished"), steps=500).write(run)
        alone.__exit__(None, None, None)

    timer = threading.Timer(0.5, finish)
    timer.start()
    outcome = contrail("watch", run)
    timer.join()
    assert outcome.code == 0
    assert "env steps 500 of 1,000 (50%)" in outcome.out and "return 12.50" in outcome.out
    assert "\nfinished" in outcome.out and "\x1b" not in outcome.out


def test_new_rows_come_once_and_whole_and_anew_after_a_resumption(tmp_path: Path) -> None:
    rows, path = NewRows(tmp_path), tmp_path / "metrics.jsonl"
    assert not list(rows.read())
    path.write_text('{"step": 1, "a/b": null}\n{"step": 2')
    assert list(rows.read()) == [{"step": 1}] and not list(rows.read())
    with path.open("a") as file:
        file.write(', "a/b": 3.0}\n')
    assert list(rows.read()) == [{"step": 2, "a/b": 3.0}]
    (tmp_path / "other").write_text('{"step": 1}\n')
    (tmp_path / "other").replace(path)
    assert list(rows.read()) == [{"step": 1}]


def test_rows_that_are_replaced_while_they_are_read_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other"
    path.write_text('{"step": 1}\n')
    other.write_text('{"step": 1, "a/b": 3.0}\n')

    def replaced(name: Path, mode: str) -> BinaryIO:
        file = name.open("rb")
        if other.exists():
            other.replace(path)
        return file

    monkeypatch.setattr("cluster.following.open", replaced, raising=False)
    rows = NewRows(tmp_path)
    assert list(rows.read()) == [{"step": 1}] and list(rows.read()) == [{"step": 1, "a/b": 3.0}]


def test_last_words(tmp_path: Path) -> None:
    assert last_words(tmp_path / "none") == []
    (tmp_path / "log").write_bytes(b"x" * 10_000 + b"\none\n\xff \x1b[33mtwo \x1b[0m\n\n")
    assert last_words(tmp_path / "log") == ["\ufffd two"]
    assert last_words(tmp_path / "log", 2) == ["one", "\ufffd two"]
    (tmp_path / "log").write_text(f"Fatal Python error: Aborted\n{BEGINS}7 on a, today\nthree\n")
    assert last_words(tmp_path / "log", 9) == ["three"], "what one before it said is not its own"


def test_vitals_of_this_process_and_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    vitals = of_this_process(seconds={"wait": 1.0, "update": 3.0})
    assert vitals.mostly == "update 75%" and vitals.memory > 10 * 2**20 and of_this_process().mostly == ""
    now = iter([10.0, 12.0])
    monkeypatch.setattr("cluster.vitals.time.monotonic", lambda: next(now))
    rate = Rate()
    assert rate.of(100.0) is None and rate.of(110.0) == 5.0
