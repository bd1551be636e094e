"""Evaluations while a run trains: they change nothing in it, outlive it, and choose the checkpoint that is kept."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actors.episodes import Episode
from cluster import evaluations as module
from cluster import evaluator
from cluster.evaluation import evaluation_values
from cluster.evaluations import Evaluations, check_evaluations
from cluster.evaluator import Evaluator
from cluster.experiment import ExperimentError
from cluster.faults import Faults
from cluster.metrics import Metrics, read_metrics
from cluster.roster import Roster
from cluster.run_folder import RunFolder, RunFolderError
from cluster.standing import FILE, Standing, best
from cluster.stop import StopRequest
from cluster.world import Local, ProcessDied
from learners import checkpoint
from recipes.ppo import ppo
from tests.cluster.commands import FAULTY, Contrail
from tests.cluster.test_run import lengthen, signal_when
from tests.cluster.worlds import same

MEAN = "eval/mean_reward"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run's, with checkpoints of 100, 200 and 300 env steps."""
    made = RunFolder.create(tmp_path / "run")
    for steps in (100, 200, 300):
        made.path_for(steps).mkdir()
    return made


def test_evaluations_while_a_run_trains_change_nothing_in_it(
    contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[int] = []
    forget = Local.forget
    monkeypatch.setattr(Local, "forget", lambda world, before: (forgotten.append(before), forget(world, before))[0])
    assert contrail.train("ppo", "--steps", 300, name="without").code == 0
    forgotten.clear()
    flags = ["--run.evaluate-every", 100, "--run.keep", 1]
    outcome = contrail.train("ppo", "--steps", 300, *flags, name="with")
    assert outcome.code == 0 and outcome.out.count("env steps, greedy evaluation: mean return ") == 2
    runs = [RunFolder(contrail.runs / name) for name in ("without", "with")]
    assert same(*(checkpoint.load(run.latest())[0] for run in runs))
    evaluated = {row["step"]: row[MEAN] for row in read_metrics(runs[1].path) if MEAN in row}
    assert [step // 100 for step in evaluated][:-1] == [1, 2] and len(evaluated) == 3
    events = EventAccumulator(str(runs[1].path / "events")).Reload()
    assert [event.step for event in events.Scalars(MEAN)] == list(evaluated)
    highest = max(evaluated, key=lambda step: evaluated[step])
    assert best(runs[1]) == runs[1].path_for(int(highest))
    assert set(runs[1].checkpoints()) == {best(runs[1]), runs[1].latest()}
    assert forgotten[-1] == checkpoint.values(runs[1].latest())["version"], "the best holds no journal back"
    assert f"best at {highest}, mean return {evaluated[highest]:.5g}" in contrail("status", runs[1].path).out
    again = contrail("evaluate", runs[1].path, "--checkpoint", "best")
    assert again.code == 0 and json.loads((runs[1].path / "evaluation.json").read_text())[MEAN] == evaluated[highest]


def test_a_stop_during_an_evaluation_is_immediate_and_resume_makes_it_again(contrail: Contrail) -> None:
    run = contrail.runs / "run"
    with signal_when(signal.SIGTERM, (run / FILE).exists):
        outcome = contrail.train("ppo", "--steps", 1000, "--run.evaluate-every", 64, "--env", f"{FAULTY}:Endless-v0")
    assert outcome.code == 143 and "greedy evaluation" not in outcome.out
    left = Standing.read(RunFolder(run))
    assert not left.ended and int(left.last) >= 64
    lengthen(run, env=f"{FAULTY}:Faulty-v0", steps=300)
    assert contrail("resume", run).code == 0
    evaluated = [row["step"] for row in read_metrics(run) if MEAN in row]
    assert evaluated[0] == int(left.last) and evaluated == sorted(set(evaluated)) and len(evaluated) > 3


@dataclass
class Elsewhere(Local):
    """A world whose evaluations are played by somebody else."""

    asked: list[str] = field(default_factory=list)
    answer: Any = None

    def evaluate(self, checkpoint: Path) -> None:
        self.asked.append(checkpoint.name.lstrip("0"))

    def evaluated(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        answer, self.answer = self.answer, None
        return answer


def played(total: float) -> list[Episode]:
    return [Episode(total, 10, 0, finished=True)]


def evaluations(folder: RunFolder, every: int, written: list, said: list[str]) -> Evaluations:
    def write(steps: int, values: Any) -> None:
        written.append((steps, values[MEAN]))

    return Evaluations(ppo(steps=1000), folder, every, write=write, say=said.append, stop=StopRequest())


def test_an_evaluation_takes_its_time_and_the_next_waits_for_it(folder: RunFolder) -> None:
    written, said, world = [], [], Elsewhere()
    some = evaluations(folder, 100, written, said)
    assert not some.due(99) and some.due(100) and not some.due(1000), "that of the end is made anyway"
    some.begin(folder.path_for(100))
    for steps in (110, 250):
        some.look(world)
        assert not some.due(steps) and some.spared >= {"000000000100"} and not written
    world.answer = played(5.0)
    some.look(world)
    assert written == [(100, 5.0)] and said == ["100 env steps, greedy evaluation: mean return 5.00 +- 0"]
    assert some.due(250), "once, with the weights of now"
    for steps, total in ((200, 7.0), (300, 7.0)):
        some.begin(folder.path_for(steps))
        world.answer = played(total)
        some.look(world)
    assert not some.due(350) and world.asked == ["100", "200", "300"]
    assert best(folder) == folder.path_for(200), "of equals the first"
    assert folder.keep_last(1, besides=some.spared) == [folder.path_for(300)]
    assert folder.checkpoints() == [folder.path_for(200), folder.path_for(300)]


def test_what_cannot_be_played_is_given_up_and_training_goes_on(folder: RunFolder) -> None:
    written, said, world = [], [], Elsewhere(answer=ProcessDied("evaluator died: of hunger"))
    some = evaluations(folder, 100, written, said)
    some.begin(folder.path_for(100))
    some.look(world)
    assert said == ["the evaluation of 100 env steps is given up: evaluator died: of hunger"]
    assert not written and not some.due(150) and some.due(200)
    with pytest.raises(RunFolderError, match="has no best checkpoint: none that it keeps was evaluated"):
        best(folder)


def test_what_cannot_be_played_after_training_is_given_up_unless_it_is_the_newest(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(experiment: Any, folder: RunFolder, checkpoint: Path) -> dict[str, float]:
        if int(checkpoint.name) in broken:
            raise RuntimeError("a wall")
        return evaluation_values(played(4.0))

    monkeypatch.setattr(module, "evaluate", evaluate)
    Standing("000000000200", ended=False).write(folder)
    Metrics(folder.path).close()
    broken, written, said = {200}, [], []
    evaluations(folder, 100, written, said).conclude()
    assert written == [(300, 4.0)] and "the evaluation of 200 env steps is given up: a wall" in said
    assert Standing.read(folder) == Standing("000000000300", True, "000000000300", 4.0)
    broken.add(300)
    with pytest.raises(RuntimeError, match="a wall"):
        evaluations(folder, 100, written, said).conclude()


def test_a_full_disk_is_told_as_such(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cluster.standing.replace_text", full)
    with pytest.raises(OSError, match=f"cannot be written in {folder.path}, which has .* make room there"):
        evaluations(folder, 100, [], []).begin(folder.path_for(100))


def test_an_evaluation_that_was_written_before_its_end_was_noted_is_not_made_again(folder: RunFolder) -> None:
    Standing("000000000200", ended=False).write(folder)
    with Metrics(folder.path) as metrics:
        metrics.write(200, {MEAN: 3.0})
    world = Elsewhere()
    evaluations(folder, 100, [], []).look(world)
    assert not world.asked and Standing.read(folder) == Standing("000000000200", True, "000000000200", 3.0)


def test_checkpoints_that_somebody_removed_are_forgotten(folder: RunFolder) -> None:
    Standing("000000000900", ended=False, best="000000000900", mean_return=9.0).write(folder)
    assert Standing.read(folder) == Standing("000000000300")
    (folder.path / FILE).write_text("{")
    with pytest.raises(RunFolderError, match=r"evaluations\.json is damaged .*: remove it"):
        Standing.read(folder)


def test_evaluations_of_nothing_are_refused(contrail: Contrail) -> None:
    assert "--run.evaluate-every is -1" in contrail.train("ppo", "--run.evaluate-every", -1).sentence
    assert not contrail.runs.exists()
    with pytest.raises(ExperimentError, match="evaluation_episodes is 0: set one of them"):
        check_evaluations(replace(ppo(), evaluation_episodes=0), 10)


class Processes(Roster):
    """A roster with nothing but an evaluator, which answers as it is told to."""

    def __init__(self, logs: Path) -> None:
        self.logs, self.started, self.full, self.grows = logs, 0, False, False

    def evaluator(self) -> Any:
        self.started += 1
        return SimpleNamespace(play=SimpleNamespace(remote=lambda version, weights: f"call {self.started}"))

    def dismiss(self, process: Any) -> None:
        pass

    def lacks_room(self, *, added: bool) -> bool:
        return self.full or (added and self.grows)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What calls of the evaluator give, one after another; none: it still plays."""
    given: list[Any] = []

    def get(reference: str) -> Any:
        answer = given.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(evaluator, "weights_of", lambda checkpoint: (1, {}))
    monkeypatch.setattr(evaluator.ray, "wait", lambda calls, timeout: (calls, []) if given else ([], calls))
    monkeypatch.setattr(evaluator.ray, "get", get)
    yield given


def test_an_evaluator_that_dies_is_replaced_till_it_died_too_often(answers: list[Any], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    processes, said, faults = Processes(tmp_path / "logs"), [], Faults(tmp_path, lambda text: said.append(text))
    one = Evaluator(processes, faults)
    died = ray.exceptions.RayActorError(error_msg="connection error code 2. End of file.")
    one.begin(tmp_path)
    assert one.ended() is None and processes.started == 1
    answers[:] = [died]
    assert one.ended() is None
    answers[:] = [played(1.0)]
    assert one.ended() == played(1.0) and processes.started == 2
    one.begin(tmp_path)
    processes.full = True
    for _ in range(3):  # learner steps
        one.make_room()
        assert one.ended() is None and processes.started == 2, "none that would be ended at once"
    processes.full = False
    assert one.ended() is None and processes.started == 3, "its place was given to an actor meanwhile"
    processes.full, processes.grows = False, True
    one.make_room()
    answers[:] = [played(1.0)]
    assert one.ended() == played(1.0) and processes.started == 3, "one that is only added waits until it is played"
    one.make_room()
    one.begin(tmp_path)
    assert one.ended() is None and processes.started == 4
    for version in (100, 200):
        answers[:] = [died]
        faults.moved(version)
        assert one.ended() is None
    answers[:] = [died]
    faults.moved(300)
    with pytest.raises(ProcessDied, match=r"^evaluator died: it crashed or was killed"):
        one.ended()
    lines = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [line["version"] for line in lines if line["event"] == "died"] == [0, 100, 200, 300]
    assert [line["process"] for line in lines if line["event"] == "goes on"] == ["evaluator"]
    assert len(said) == 4 and said[0].startswith("evaluator: it crashed or was killed, ")
