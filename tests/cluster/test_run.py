"""Runs from start to end in one process: what they leave behind, however they end."""

import json
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actors.environments import environment_seeds
from cluster.evaluation import digits
from cluster.lock import holding
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from cluster.world import Local
from learners import checkpoint
from tests.cluster.commands import FAULTY, Contrail, Outcome, segments_folders

TAGS = {
    "train": {"policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "learning_rate", "version"},
    "rollout": {"ep_rew_mean", "ep_len_mean", "episodes"},
    "staleness": {"mean", "max"},
    "replay": {"rows_committed", "segments", "bytes", "fresh/windows"},
    "time": {"fps", "total_timesteps", "learner_wait", "learner_update", "actor_environment", "actor_inference"},
    "eval": {"mean_reward", "std_reward", "mean_ep_length"},
}


def test_a_run_leaves_everything_in_its_folder(contrail: Contrail) -> None:
    outcome = contrail.train("ppo", "--steps", 300, "--seed", 7, "--topology.actors", 2)
    run = contrail.runs / "run"
    assert outcome.code == 0 and not outcome.error
    assert "greedy evaluation: mean return " in outcome.out and "\x1b" not in outcome.out
    assert f"tensorboard --logdir {run}" in outcome.out.splitlines()[-1]
    wanted = {f"{group}/{name}" for group, names in TAGS.items() for name in names}
    rows = read_metrics(run)
    assert wanted <= {tag for row in rows for tag in row}
    accumulator = EventAccumulator(str(run / "events")).Reload()
    assert wanted <= set(accumulator.Tags()["scalars"])
    for tag in ("train/value_loss", "time/total_timesteps"):
        events = [(event.step, pytest.approx(event.value)) for event in accumulator.Scalars(tag)]
        assert [(row["step"], row[tag]) for row in rows if tag in row] == events
    experiment = json.loads((run / "experiment.json").read_text())
    assert experiment["seeds"] == {f"actor-{index}": environment_seeds(7, index, 2) for index in range(2)}
    assert experiment["arguments"][-6:] == ["--steps", "300", "--seed", "7", "--topology.actors", "2"]
    assert json.loads((run / "evaluation.json").read_text())["eval/mean_reward"] == rows[-1]["eval/mean_reward"]
    assert sorted(path.name for path in (run / "replay").iterdir()) == ["journal", "log"]
    assert not list((run / "logs").iterdir())
    assert not segments_folders(contrail.runs / "run")


def test_a_moment_is_saved_once(contrail: Contrail, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    save = Local.save
    monkeypatch.setattr(Local, "save", lambda world, folder: (saved.append(folder.name), save(world, folder))[1])
    for seconds, least in ((0.0, 2), (1000.0, 1)):
        saved.clear()
        assert contrail.train("ppo", "--steps", 100, "--run.checkpoint-seconds", seconds, name=f"{seconds}").code == 0
        assert len(saved) == len(set(saved)) >= least
        assert RunFolder(contrail.runs / f"{seconds}").latest().name == saved[-1]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("Raise", "actor-1: environment 0 of 2 raised ValueError: the cart fell off at step 40; last action "),
        ("Nan", "actor-1: environment 0 of 2 returned observation [ 0. nan  0.] at step "),
        ("Reward", "actor-1: environment 0 of 2 returned reward inf at step "),
        (
            "Shape",
            "actor-1: environment 0 of 2 returned observation of shape (2,), where its space says (3,), at step 40; ",
        ),
    ],
)
def test_an_environment_that_fails_is_named_and_what_was_learned_is_kept(
    fault: str, sentence: str, contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_in_actor(1, monkeypatch)
    outcome = contrail.train("ppo", "--env", f"{FAULTY}:Faulty{fault}-v0", "--topology.actors", 2)
    assert outcome.code == 2
    assert sentence in outcome.sentence
    run = RunFolder(contrail.runs / "run")
    (kept,) = run.checkpoints()
    steps = int(kept.name)
    assert steps == read_metrics(run.path)[-1]["step"] == checkpoint.load(kept)[1]["steps"] > 0
    assert f"continue with: contrail resume {run.path}" in outcome.error
    log = (run.path / "logs" / "failure.log").read_text()
    assert "Traceback" in log and "EnvironmentFailed: actor-1" in log
    assert not segments_folders(contrail.runs / "run")


def only_in_actor(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only one actor's environments be faulty: those made after the other actors'."""
    from tests.cluster import faulty

    first = faulty.Faulty.made + 1 + 2 * index  # one is made for a look at its spaces
    make = faulty.Faulty.__init__

    def made(self: faulty.Faulty, fault: str = "", *arguments: object) -> None:
        make(self, fault if faulty.Faulty.made >= first else "", *arguments)

    monkeypatch.setattr(faulty.Faulty, "__init__", made)


def test_an_environment_that_fails_at_once_leaves_nothing_to_continue(contrail: Contrail) -> None:
    outcome = contrail.train("ppo", "--env", f"{FAULTY}:FaultyReset-v0")
    assert outcome.code == 2
    assert "actor-0: environment 0 of 4 raised OSError: the simulator is not there at reset" in outcome.sentence
    assert "continue" not in outcome.error and not segments_folders(contrail.runs / "run")


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that takes no file above so many bytes: the error is another one than a full disk's, the path the same."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_too_full_for_the_journal(contrail: Contrail) -> None:
    with files_no_larger_than(5_000):
        outcome = contrail.train("ppo")
    assert outcome.code == 1
    assert "/replay/journal/000 has no room for the journal of shard-0, " in outcome.sentence


def test_a_disk_too_full_for_segments(contrail: Contrail) -> None:
    with files_no_larger_than(200_000):
        outcome = contrail.train("ppo", "--rows", 128)
    assert outcome.code == 1
    assert "has no room for a segment: wanted " in outcome.sentence and "lower the tables' capacity" in outcome.error
    assert not segments_folders(contrail.runs / "run")


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is not a segment that finds no room."""
    monkeypatch.setattr("cluster.assembly.SEGMENT_BYTES", 0)


@pytest.mark.usefixtures("small_segments")
def test_a_disk_too_full_for_checkpoints_keeps_the_one_before(contrail: Contrail) -> None:
    assert contrail.train("ppo", "--steps", 64).code == 0
    run = contrail.runs / "run"
    lengthen(run, steps=200)
    before = RunFolder(run).checkpoints()
    with files_no_larger_than(100_000):
        outcome = contrail("resume", run)
    assert outcome.code == 1
    assert f"no checkpoint could be written in {run.resolve()}/checkpoints, which has " in outcome.sentence
    assert RunFolder(run).checkpoints() == before and len(list((run / "checkpoints").iterdir())) == 1
    assert checkpoint.load(before[0])[1]["steps"] >= 64
    assert f"continue with: contrail resume {run}" in outcome.error and not segments_folders(contrail.runs / "run")


@pytest.mark.usefixtures("small_segments")
def test_a_disk_too_full_for_metrics_keeps_what_was_learned(contrail: Contrail) -> None:
    with files_no_larger_than(200_000):  # a checkpoint takes less
        outcome = contrail.train("ppo", "--steps", 50_000)
    run = contrail.runs / "run"
    assert outcome.code == 1
    assert f"metrics cannot be written in {run}, which has " in outcome.sentence
    assert RunFolder(run).checkpoints() and f"continue with: contrail resume {run}" in outcome.error
    assert not segments_folders(contrail.runs / "run")


def lengthen(run: Path, **flags: object) -> None:
    """Change recorded flags of a run: each later one of the same name wins."""
    path = run / "experiment.json"
    experiment = json.loads(path.read_text())
    experiment["arguments"] += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    path.write_text(json.dumps(experiment))


OWN = """
from dataclasses import dataclass, replace
from cluster.experiment import Experiment, Topology
from learners.gradient import Gradient
from learners.objective import Term
from learners.objectives.ppo import PPO
from recipes.ppo import ppo


@dataclass(frozen=True)
class Sick(PPO):
    fault: str = ""

    def terms(self, model, out, batch):
        if self.fault == "raise":
            raise LookupError("not in the book")
        terms = super().terms(model, out, batch)
        loss = terms["value_loss"]
        return terms | {"value_loss": Term(loss.value * float("nan"), loss.mask)}


def sick(*, fault: str = "", steps: int = 64, topology: Topology = Topology()) -> Experiment:
    experiment = ppo(steps=steps, envs=4, rows=16, topology=topology)
    return replace(experiment, updates=(Gradient({"fresh": Sick(fault=fault)}),))
"""


def train_own(contrail: Contrail, tmp_path: Path, fault: str) -> Outcome:
    (tmp_path / "own_sick.py").write_text(OWN)
    place = ["--run.folder", contrail.runs, "--run.name", "run", "--topology.local"]
    return contrail("train", f"{tmp_path}/own_sick.py:sick", "--fault", fault, *place)


def test_a_loss_that_is_no_number_ends_the_run(contrail: Contrail, tmp_path: Path) -> None:
    outcome = train_own(contrail, tmp_path, "nan")
    assert outcome.code == 1
    assert "train/value_loss, train/gradient_norm became nan; first parameter with a bad gradient: " in outcome.sentence
    assert not RunFolder(contrail.runs / "run").checkpoints(), "a step that failed half-way is not saved"
    assert not segments_folders(contrail.runs / "run")


def test_what_nobody_foresaw_is_a_sentence_too_and_its_traceback_is_kept(contrail: Contrail, tmp_path: Path) -> None:
    outcome = train_own(contrail, tmp_path, "raise")
    assert outcome.code == 1
    assert outcome.sentence == "contrail: LookupError: not in the book"
    assert "own_sick.py" in (contrail.runs / "run" / "logs" / "failure.log").read_text()


@contextmanager
def signal_when(number: signal.Signals, true: Callable[[], bool]) -> Iterator[None]:
    """Send this process a signal once something is true, if the block has not ended by then."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if true():
                os.kill(os.getpid(), number)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stopped_run_is_saved_and_resumes_to_its_end(number: signal.Signals, code: int, contrail: Contrail) -> None:
    run = contrail.runs / "run"
    before = signal.getsignal(number)
    with signal_when(number, lambda: (run / "metrics.jsonl").is_file() and len(read_metrics(run)) > 2):
        outcome = contrail.train("ppo", "--steps", 100_000)
    assert outcome.code == code and not outcome.error
    assert f"stopped; continue with: contrail resume {run}" in outcome.out
    assert signal.getsignal(number) is before
    steps = int(RunFolder(run).latest().name)
    assert 0 < steps < 100_000 and read_metrics(run)[-1]["step"] == steps
    assert not segments_folders(contrail.runs / "run")
    lengthen(run, steps=steps + 200)
    outcome = contrail("resume", run)
    assert outcome.code == 0 and "greedy evaluation" in outcome.out
    curve = [row["step"] for row in read_metrics(run) if "train/value_loss" in row]
    assert curve == sorted(set(curve)) and steps in curve and curve[-1] >= steps + 200


def test_a_folder_that_vanishes_ends_the_run_and_what_was_learned_is_elsewhere(
    contrail: Contrail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, gone = contrail.runs / "run", tmp_path / "gone"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def vanish() -> bool:
        if (run / "metrics.jsonl").is_file() and len(read_metrics(run)) > 2:
            run.rename(gone)
        return gone.exists()

    with signal_when(signal.SIGWINCH, vanish):  # which nobody heeds
        outcome = contrail.train("ppo", "--steps", 100_000, "--run.checkpoint-seconds", 1)
    assert outcome.code == 2, outcome.error
    assert f"{run} is gone: somebody removed it, or its disk is not there any more" in outcome.sentence
    (refuge,) = (tmp_path / "contrail-run").iterdir()
    assert f"what came after the last checkpoint is in {refuge}" in outcome.error
    assert not segments_folders(contrail.runs / "run")
    shutil.rmtree(run, ignore_errors=True)
    gone.rename(run)
    refuge.rename(run / "checkpoints" / refuge.name)
    lengthen(run, steps=int(refuge.name) + 200)
    assert contrail("resume", run).code == 0
    curve = [row["step"] for row in read_metrics(run) if "train/value_loss" in row]
    assert curve == sorted(set(curve)) and int(refuge.name) in curve


def test_a_stop_during_the_evaluation_is_immediate_and_resume_plays_it(contrail: Contrail) -> None:
    run = contrail.runs / "run"
    with signal_when(signal.SIGINT, endless_is_played()):  # more steps than training takes
        outcome = contrail.train("ppo", "--steps", 64, "--env", f"{FAULTY}:Endless-v0")
    assert outcome.code == 130 and not outcome.error
    assert "playing 10 greedy episodes ..." in outcome.out and "greedy evaluation" not in outcome.out
    assert int(RunFolder(run).latest().name) >= 64 and not (run / "evaluation.json").exists()
    lengthen(run, env=f"{FAULTY}:Faulty-v0")
    outcome = contrail("resume", run)
    assert outcome.code == 0
    assert "greedy evaluation: mean return 10.0 +- 0" in outcome.out and (run / "evaluation.json").is_file()


def test_a_stop_while_evaluate_plays_says_so(contrail: Contrail) -> None:
    assert contrail.train("ppo", "--steps", 64).code == 0
    lengthen(contrail.runs / "run", env=f"{FAULTY}:EndlessCartPole-v0")
    with signal_when(signal.SIGINT, endless_is_played()):
        outcome = contrail("evaluate", contrail.runs / "run")
    assert outcome.code == 130
    assert outcome.sentence == "contrail: interrupted"


def endless_is_played() -> Callable[[], bool]:
    from tests.cluster import faulty

    before = faulty.Endless.steps
    return lambda: faulty.Endless.steps > before + 100


def test_a_run_that_is_being_trained_is_not_resumed_by_another(contrail: Contrail) -> None:
    assert contrail.train("ppo", "--steps", 64).code == 0
    with holding(contrail.runs / "run") as held:
        assert held
        outcome = contrail("resume", contrail.runs / "run")
    assert outcome.code == 2
    assert "is being trained by another process: wait for it, or stop it first" in outcome.sentence


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.03124, "0.0312"), (0.5, "0.500"), (9.5, "9.50"), (-163.21, "-163"), (1234.5, "1234")],
)
def test_digits(value: float, text: str) -> None:
    assert digits(value) == text
