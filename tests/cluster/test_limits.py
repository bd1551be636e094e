"""Limits that are changed while a run goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.experiment import ExperimentError, Spaces
from cluster.limits import LimitsFile
from cluster.metrics import read_metrics
from cluster.run import RunOptions, train
from cluster.run_folder import RunFolder, RunFolderError
from cluster.world import Local
from replay import TableError
from tests.cluster.commands import Contrail
from tests.cluster.test_durable import LOCAL, small, with_history
from tests.cluster.worlds import world_of


def test_what_is_asked_is_heard_once(tmp_path: Path) -> None:
    (tmp_path / "replay").mkdir()
    experiment = with_history(small(LOCAL))
    asking, running = (LimitsFile(RunFolder(tmp_path)) for _ in range(2))
    assert running.changed() == {}
    asking.ask(experiment, "history", {"samples_per_insert": 0.5})
    asking.ask(experiment, "history", {"tolerance": 200.0})
    assert running.changed() == {"history": {"samples_per_insert": 0.5, "tolerance": 200.0}}
    assert running.changed() == {}
    with pytest.raises(RunFolderError, match="the run has fresh, history"):
        asking.ask(experiment, "none", {"tolerance": 1.0})
    with pytest.raises(TableError, match="samples_per_insert is -1"):
        asking.ask(experiment, "history", {"samples_per_insert": -1.0})
    with pytest.raises(ExperimentError, match=r"0\.1 would stop the run, wanted at least 0\.125"):
        asking.ask(experiment, "history", {"samples_per_insert": 0.1})
    with pytest.raises(ExperimentError, match="waits for 3000 windows, but holds 128 when actors wait"):
        asking.ask(experiment, "history", {"min_items": 3000})
    assert running.changed() == {}


@pytest.mark.parametrize("shards", [1, 2])
def test_a_running_store_follows_its_new_limits(shards: int, tmp_path: Path) -> None:
    with world_of(with_history(small(replace(LOCAL, shards=shards))), tmp_path) as world:
        world.advance()
        world.limit({"history": {"samples_per_insert": 0.1, "tolerance": 64.0}})
        balances = [world.advance().metrics["replay/history/balance"] for _ in range(6)]
        assert isinstance(world, Local)
        assert all(shard.tables["history"].samples_per_insert == 0.1 for shard in world.shards)
        assert set(world.histograms()) >= {"replay/history/priority", "replay/history/age"}
    assert max(abs(balance) for balance in balances) <= 64 + 16 and len(set(balances)) > 1


def test_the_command_reaches_the_run_when_it_is_resumed(contrail: Contrail) -> None:
    contrail.train("ppo", "--steps", "300")
    run = contrail.runs / "run"
    outcome = contrail("limit", run, "fresh", "--tolerance", 500)
    assert outcome.code == 0 and "tolerance 500.0, from the next learner step" in outcome.out
    description = json.loads((run / "experiment.json").read_text())
    arguments = description["arguments"]
    arguments[arguments.index("--steps") + 1] = "600"
    (run / "experiment.json").write_text(json.dumps(description))
    limits = run / "replay" / "limits.json"
    limits.write_text(limits.read_text().replace("fresh", "other"))  # so that one can tell that it is read
    assert 'there is no table "other"' in contrail("resume", run).sentence
    limits.write_text(limits.read_text().replace("other", "fresh"))
    assert contrail("resume", run).code == 0


@pytest.mark.parametrize("seconds", [0.0, 600.0])
def test_histograms_come_with_every_checkpoint(seconds: float, tmp_path: Path) -> None:
    experiment = replace(with_history(small(LOCAL, steps=600)), evaluation_episodes=0).checked()
    folder = RunFolder.create(tmp_path / "run")
    train(experiment, Spaces.of(experiment.environment), folder, RunOptions(checkpoint_seconds=seconds), title="")
    events = EventAccumulator(str(folder.path / "events")).Reload()
    assert set(events.Tags()["histograms"]) == {
        "replay/history/priority",
        "replay/history/age",
        "staleness/fresh",
        "importance/fresh",
    }
    assert events.Histograms("replay/history/priority")[-1].histogram_value.num > 300


def test_a_command_that_changes_nothing_is_refused(contrail: Contrail) -> None:
    contrail.train("ppo", "--steps", "300")
    run = contrail.runs / "run"
    assert "give one of --min-items" in contrail("limit", run, "fresh").sentence
    assert "the run has fresh" in contrail("limit", run, "history", "--tolerance", 5).sentence
    (run / "replay" / "limits.json").write_text("{")
    assert "is damaged" in contrail("limit", run, "fresh", "--tolerance", 5).sentence


PAST = """
from cluster.experiment import Topology
from tests.cluster.test_durable import LOCAL, small, with_history
def past(*, steps: int = 600, topology: Topology = LOCAL):
    return with_history(small(topology, steps=steps))
"""


def test_what_a_table_holds_may_be_waited_for(contrail: Contrail, tmp_path: Path) -> None:
    recipe, run = tmp_path / "past.py", contrail.runs / "run"
    recipe.write_text(PAST)
    assert contrail("train", f"{recipe}:past", "--run.folder", run.parent, "--run.name", run.name).code == 0
    held = int(max(row.get("replay/history/windows", 0) for row in read_metrics(run)))
    assert contrail("limit", run, "history", "--min-items", held).code == 0
    assert "min_items None" in contrail("limit", run, "history", "--reset", "--tolerance", 90).out
    limits = LimitsFile(RunFolder(run)).read()["history"]
    assert limits == {"min_items": None, "samples_per_insert": None, "tolerance": 90}
    assert f"but holds {held} when actors wait" in contrail("limit", run, "history", "--min-items", held + 1).sentence
