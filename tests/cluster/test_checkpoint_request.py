"""A checkpoint that somebody asks for while a run goes on."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from cluster.checkpoint_request import FILE, command_checkpoint
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from tests.cluster.commands import Contrail, wait_until
from tests.cluster.test_status import condition, driven, run

__all__ = ["run"]


def test_a_run_that_goes_on_writes_it(contrail: Contrail) -> None:
    folder, codes = RunFolder(contrail.runs / "run"), []
    metrics = folder.path / "metrics.jsonl"

    def ask() -> None:
        wait_until(lambda: metrics.is_file() and read_metrics(folder.path), "the run trains")
        codes.append(command_checkpoint([str(folder.path)]))
        asked.extend(folder.checkpoints())
        os.kill(os.getpid(), signal.SIGTERM)

    asked: list[Path] = []
    thread = threading.Thread(target=ask)
    thread.start()
    outcome = contrail.train("ppo", "--steps", 1_000_000, "--run.checkpoint-seconds", 1000)
    thread.join()
    assert outcome.code == 143 and codes == [0]
    assert len(asked) == 1 and str(asked[0]) in outcome.out.splitlines()
    assert not (folder.path / FILE).exists()
    outcome = contrail("checkpoint", folder.path)
    assert outcome.code == 2
    assert outcome.sentence.endswith(f"{folder.path} is not running: its newest checkpoint is {folder.latest()}")


def test_a_run_that_ends_meanwhile_is_told(run: Path, contrail: Contrail) -> None:
    condition().write(run)

    def fail() -> None:
        wait_until((run / FILE).exists, "somebody asks")
        time.sleep(0.3)
        condition("failed").write(run)

    thread = threading.Thread(target=fail)
    with driven(run):
        thread.start()
        outcome = contrail("checkpoint", run)
    thread.join()
    assert outcome.code == 2 and "ended before it wrote a checkpoint: contrail status" in outcome.sentence
    assert not (run / FILE).exists(), "nobody wants it any more when the run is resumed"
    assert "is not running: it has no checkpoint" in contrail("checkpoint", run).sentence


def test_who_gives_up_wants_it_no_more(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(seconds: float) -> None:
        assert (run / FILE).exists()
        raise KeyboardInterrupt

    condition().write(run)
    monkeypatch.setattr("cluster.checkpoint_request.time.sleep", give_up)
    monkeypatch.setattr("cluster.checkpoint_request.look", lambda folder: (condition(), True))
    with pytest.raises(KeyboardInterrupt):
        command_checkpoint([str(run)])
    assert not (run / FILE).exists()


def test_a_run_that_plays_its_last_episodes_has_written_all(run: Path, contrail: Contrail) -> None:
    condition("evaluating").write(run)
    last = RunFolder(run).path_for(700)
    last.mkdir(parents=True)
    with driven(run):
        assert contrail("checkpoint", run).out == f"{last}\n"
