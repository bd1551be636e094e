"""The driver's file on a run: fresh while it works, right in the end, whatever the end."""

import json
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from cluster.condition import Condition
from cluster.logs import TAIL, Log
from cluster.pulse import Pulse
from cluster.roll_call import RollCall
from cluster.vitals import Vitals
from cluster.weights import fetch


class Quiet:
    """A crew of one actor that failed, or did not."""

    def __init__(self, failed: str = "") -> None:
        self.failed = failed

    def vitals(self) -> list[Vitals]:
        return [Vitals("actor-0", "failed" if self.failed else "runs")]

    def culprit(self) -> str:
        return self.failed


def found(folder: Path) -> Condition:
    condition = Condition.read(folder)
    assert condition is not None
    return condition


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def pulse(folder: Path, every: float = 60.0) -> Pulse:
    return Pulse(folder, title="ppo on X", of=1000, every=every)


def test_it_beats_while_the_driver_is_busy(folder: Path) -> None:
    with pulse(folder, every=0.02) as beating:
        assert found(folder).phase == "starting"
        beating.follow(Quiet())
        beating.moved(128, 50.0)
        deadline, first = time.monotonic() + 30, found(folder).written
        while found(folder).phase == "starting" or found(folder).written == first:
            assert time.monotonic() < deadline
        now = found(folder)
        assert (now.phase, now.steps, now.rate) == ("training", 128, 50.0) and not now.over
        assert [process.name for process in now.processes] == ["driver", "actor-0"]
    assert found(folder).phase == "finished"


def test_a_stop_is_no_failure(folder: Path) -> None:
    with pulse(folder) as beating:
        beating.phase("stopped", "by SIGTERM")
    assert (found(folder).phase, found(folder).why) == ("stopped", "by SIGTERM")
    with pytest.raises(KeyboardInterrupt), pulse(folder):
        raise KeyboardInterrupt
    assert (found(folder).phase, found(folder).why) == ("stopped", "interrupted")
    assert not list((folder / "logs").iterdir())


def test_an_error_names_its_process_and_its_last_words(folder: Path) -> None:
    (folder / "logs" / "actor-0.log").write_text("segmentation fault\n")
    with pytest.raises(LookupError) as raised, pulse(folder) as beating:
        beating.follow(Quiet("actor-0"))
        raise LookupError("not in\nthe book")
    first, *rest = (folder / "logs" / "error.txt").read_text().splitlines()
    assert first.endswith(" actor-0: LookupError: not in the book")
    assert rest == ["last words of actor-0:", "  segmentation fault", "traceback: logs/failure.log"]
    assert "Traceback" in (folder / "logs" / "failure.log").read_text()
    assert raised.value.__notes__ == [f"traceback: {folder / 'logs' / 'failure.log'}"]
    assert [process.state for process in found(folder).processes] == ["runs", "failed"], "nobody else failed"
    with pulse(folder):
        assert not (folder / "logs" / "error.txt").exists(), "the run goes on"


def test_a_disk_without_room_does_not_hide_the_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Condition, folder: Path) -> None:
        raise OSError("no space left on device")

    with pytest.raises(LookupError), pulse(folder):
        monkeypatch.setattr(Condition, "write", full)
        raise LookupError("this one")
    assert json.loads((folder / "processes.json").read_text())["phase"] == "starting"


def test_a_machine_that_tells_nothing_of_its_processes_does_not_hide_the_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untold(**values: object) -> Vitals:
        raise OSError("too many open files")

    with pytest.raises(LookupError), pulse(folder):
        monkeypatch.setattr("cluster.pulse.of_this_process", untold)
        raise LookupError("this one")


def test_a_process_that_is_added_during_a_roll_call_waits_for_the_next(tmp_path: Path) -> None:
    class Growing(dict[str, str]):
        def items(self) -> Any:
            found = list(super().items())
            self["second"] = "actor-1"
            return found

    roll = RollCall(Growing(first="actor-0"), tmp_path)
    roll.end()
    assert [vitals.name for vitals in roll.call()] == ["actor-0"]
    assert [vitals.name for vitals in roll.call()] == ["actor-0", "actor-1"]


class Silent:
    """A process that never answers; counts the calls."""

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self.called.update([name]))


def test_who_waits_for_an_answer_knocks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that only the other side has closed is noticed by who sends something."""
    clock = [0.0]

    def late(reference: None, *, timeout: float) -> None:
        clock[0] += timeout
        raise ray.exceptions.GetTimeoutError("late")

    monkeypatch.setattr("cluster.weights.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("cluster.roll_call.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("ray.get", late)
    monkeypatch.setattr("ray.wait", lambda references, **how: ([], references))
    shard, actor = Silent(), Silent()
    with pytest.raises(TimeoutError, match="waited 35 s, but it slept"):
        fetch(None, seconds=35.0, otherwise="but it slept", of=shard)
    assert clock == [35.0] and shard.called == {"pid": 3}
    roll = RollCall({actor: "actor-0"}, tmp_path)
    for clock[0] in (40.0, 45.0, 51.0, 55.0, 62.0):
        roll.call()
    assert actor.called == {"vitals": 1, "pid": 2}


def test_what_a_process_prints_on_another_machine_comes_to_the_runs_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.logs.log_to", lambda path: path.parent.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr("cluster.logs.tempfile.gettempdir", lambda: str(tmp_path / "there"))
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    log, near = Log(logs / "actor-0.log", far=True), Log(logs / "actor-1.log", far=False)
    (there,) = (tmp_path / "there").rglob("run")
    roll = RollCall({}, logs)
    for text in ("one\n", "", "two\n" * 9000):
        with open(there / "actor-0.log", "a") as file:
            file.write(text)
        told = roll._heard(Vitals(pid=7, printed=log.news()), Vitals("actor-0"))
        assert told.printed == "", "it is not kept in processes.json as well"
    said = (logs / "actor-0.log").read_text()
    assert said.startswith("one\n") and said.endswith("two\n") and len(said) == 4 + TAIL
    assert near.news() == ""
