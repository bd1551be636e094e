"""What a run's store survives, and what can be done with it afterwards."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from cluster.experiment import Experiment, ExperimentError, Spaces, Topology
from cluster.inspect import inspect
from cluster.metrics import read_metrics
from cluster.run import RunOptions, train
from cluster.run_folder import RunFolder
from cluster.world import Local
from learners.gradient import Gradient
from learners.objectives.clone import Clone
from recipes.clone import clone
from recipes.ppo import ppo
from replay.opening import prepare_restart
from replay.store import Store
from replay.table import Table
from tests.cluster.commands import Contrail
from tests.cluster.worlds import same, weights_after, world_of

ray_test = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def small(topology: Topology, **flags) -> Experiment:
    return ppo(rows=16, epochs=2, minibatches=2, topology=topology, **flags)


def with_history(experiment: Experiment, **fields) -> Experiment:
    """The same, and cloning from a table of all rows beside it, by priority."""
    history = Table(batch=16, select="prioritised", capacity=4000, **fields)
    past = Gradient({"history": Clone()}, epochs=1, minibatches=1, priorities={"history": "clone/loss"})
    tables = {**experiment.tables, "history": history}
    return replace(experiment, tables=tables, updates=(*experiment.updates, past))


LOCAL = Topology(actors=2, learners=1, local=True)


@pytest.fixture(scope="module")
def one_ray():
    from cluster.embedded import start_ray

    start_ray("")
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_killed_shard_goes_on_where_it_was(one_ray, tmp_path: Path) -> None:
    experiment = with_history(small(LOCAL))
    local = weights_after(experiment, tmp_path / "local", 6)
    spread = replace(experiment, topology=Topology(actors=2, learners=1))
    with world_of(spread, tmp_path / "ray", rows="lz4") as world:
        for step in range(6):
            if step in (1, 3):
                (shard,) = (process for process, name in world.names.items() if name == "shard-0")
                os.kill(ray.get(shard.pid.remote()), signal.SIGKILL)
            world.advance()
        world.save(tmp_path / "ray" / "checkpoint")
    from learners import checkpoint

    # Nothing is lost and nothing is drawn twice: it is as if nobody had died, priorities and all.
    assert same(checkpoint.load(tmp_path / "ray" / "checkpoint")[0], local)
    draws = Store.open(tmp_path / "ray").draws()
    assert len(draws) == 6 * (8 + 16) and set(draws["step"].to_pylist()) == set(range(6))


def test_priorities_follow_the_term(tmp_path: Path) -> None:
    with world_of(with_history(small(LOCAL)), tmp_path) as world:
        metrics = [world.advance().metrics for _ in range(4)][-1]
        assert isinstance(world, Local)
        _, _, priorities = world.shards[0].holdings["history"].live()
    assert metrics["replay/history/priorities_set"] > 30 and metrics["replay/history/priorities_stale"] == 0
    assert len(set(priorities.tolist())) > 30


def test_windows_that_never_come_are_told(tmp_path: Path) -> None:
    """What `within` leaves out nobody can know before it was played."""
    past = with_history(small(LOCAL), window=2, within=("step",))
    with world_of(past, tmp_path) as world, pytest.raises(ExperimentError, match="windows, and actors wait for this"):
        world.advance()


def test_history_is_resumed_and_what_is_read_once_is_not(tmp_path: Path) -> None:
    experiment = with_history(small(LOCAL))
    weights_after(experiment, tmp_path, 4)
    world = world_of(experiment, tmp_path, resume=tmp_path / "checkpoint", rows="none")
    assert isinstance(world, Local)
    prepare_restart(world.experiment.tables, world.places, shards=1, seed=experiment.seed, version=4)
    with world:
        assert world.shards[0].holdings["history"].held == 0  # no rows were kept, so none could be resumed


@pytest.mark.parametrize("shards", [1, 2])
def test_rows_that_were_kept_are_history_again(shards: int, tmp_path: Path) -> None:
    experiment = with_history(small(LOCAL))
    with world_of(experiment, tmp_path, rows="lz4") as world:
        for _ in range(4):
            world.advance()
        assert isinstance(world, Local)
        held = world.shards[0].holdings["history"].held
        _, _, priorities = world.shards[0].holdings["history"].live()
        world.save(tmp_path / "checkpoint")
    again = replace(experiment, topology=replace(LOCAL, shards=shards))
    world = world_of(again, tmp_path, resume=tmp_path / "checkpoint", rows="lz4")
    prepare_restart(world.experiment.tables, world.places, shards=shards, seed=again.seed, version=4)
    with world:
        assert isinstance(world, Local)
        resumed = [shard.holdings["history"] for shard in world.shards]
        assert sum(holding.held for holding in resumed) == held
        kept = sorted(value for holding in resumed for value in holding.live()[2].tolist())
        assert set(kept) <= set(priorities.tolist())
        advance = world.advance()
    assert advance.version == 5


def test_a_run_keeps_its_rows_and_every_step_can_be_made_again(contrail: Contrail) -> None:
    assert contrail.train("ppo", "--steps", "600", "--run.checkpoint-seconds", "0").code == 0
    run = contrail.runs / "run"
    rows = [row for row in read_metrics(run) if "train/version" in row]
    store = Store.open(run)
    assert store.dataset().count_rows() >= 600 and not (run / "replay" / "segments").exists()
    assert store.verify() == store.dataset().count_rows()
    last = int(rows[-1]["train/version"]) - 1
    for step in (0, last):
        outcome = contrail("replay", run, "--step", step)
        assert outcome.code == 0 and "bit for bit" in outcome.out
    assert "wanted 0 to" in contrail("replay", run, "--step", last + 1).sentence


def test_a_step_that_differs_is_told(contrail: Contrail) -> None:
    contrail.train("ppo", "--steps", "300")
    metrics = contrail.runs / "run" / "metrics.jsonl"
    first, *rest = metrics.read_text().splitlines(keepends=True)
    crc = int(read_metrics(contrail.runs / "run")[0]["facts/weights_crc"])
    metrics.write_text(first.replace(f"{float(crc)}", f"{float(crc + 1)}") + "".join(rest))
    outcome = contrail("replay", contrail.runs / "run", "--step", 0)
    assert outcome.code == 1 and "differ" in outcome.out


def test_without_rows_there_is_nothing_to_make_again(contrail: Contrail) -> None:
    contrail.train("ppo", "--steps", "300", "--run.rows", "none")
    assert "rows were not kept" in contrail("replay", contrail.runs / "run", "--step", 0).sentence
    assert not list((contrail.runs / "run" / "replay").rglob("*.arrow"))


def test_inspect_shows_tables_and_leaves_the_run_as_it_is(contrail: Contrail) -> None:
    contrail.train("ppo", "--steps", "300")
    run = contrail.runs / "run"
    before = {path: path.stat().st_mtime_ns for path in (run / "replay").rglob("*")}
    outcome = contrail("inspect", run)
    assert outcome.code == 0 and "fresh" in outcome.out and "kept bytes per row" in outcome.out
    assert before == {path: path.stat().st_mtime_ns for path in (run / "replay").rglob("*")}
    assert "has no store yet" in contrail("inspect", begun(contrail.runs / "other", run)).sentence


def begun(folder: Path, like: Path) -> Path:
    """A run that has not begun."""
    folder.mkdir()
    (folder / "experiment.json").write_bytes((like / "experiment.json").read_bytes())
    return folder


def test_an_inspection_adds_shards_up(tmp_path: Path) -> None:
    experiment = with_history(small(replace(LOCAL, shards=2)))
    with world_of(experiment, tmp_path) as world:
        for _ in range(3):
            world.advance()
        found = inspect(RunFolder(tmp_path), experiment)
        assert isinstance(world, Local)
        held = sum(shard.holdings["history"].held for shard in world.shards)
    assert found.tables["history"]["windows"] == held
    counts, edges = found.histograms["history/priority"]
    assert counts.sum() == held and len(edges) == 31


def test_an_offline_run_clones_what_a_run_did(contrail: Contrail) -> None:
    contrail.train("ppo", "--steps", "600", name="teacher")
    outcome = contrail(
        *("train", "clone", "--store", contrail.runs / "teacher", "--topology.local", "--batch", "64"),
        *("--steps", "2000", "--run.folder", contrail.runs, "--run.name", "pupil"),
    )
    assert outcome.code == 0, outcome.error
    rows = read_metrics(contrail.runs / "pupil")
    assert rows[-1]["step"] >= 2000 and "clone/loss" in rows[0]
    assert "bit for bit" in contrail("replay", contrail.runs / "pupil", "--step", 3).out  # from the teacher's rows
    description = contrail.runs / "pupil" / "experiment.json"
    description.write_text(description.read_text().replace('"2000"', '"3000"'))
    assert contrail("resume", contrail.runs / "pupil").code == 0
    assert read_metrics(contrail.runs / "pupil")[-1]["step"] >= 3000


def test_a_store_of_other_rows_is_refused(contrail: Contrail, tmp_path: Path) -> None:
    contrail.train("ppo", "--steps", "300", name="teacher")
    flags = ("--store", contrail.runs / "teacher", "--topology.local", "--run.folder", contrail.runs)
    sentence = contrail("train", "clone", *flags, "--env", "Acrobot-v1").sentence
    assert 'column "observation" is float32 (4,)' in sentence
    assert "give --store" in contrail("train", "clone").sentence
    assert "holds no store" in contrail("train", "clone", "--store", tmp_path, "--topology.local").sentence
    experiment = clone(store=str(contrail.runs / "teacher"))
    once = replace(experiment, tables={"demonstrations": Table(batch=8)})
    with pytest.raises(ExperimentError, match="let reads be 0"):
        once.checked()


def test_too_few_rows_are_told(contrail: Contrail) -> None:
    contrail.train("ppo", "--steps", "300", name="teacher")
    flags = ("--store", contrail.runs / "teacher", "--topology.local", "--run.folder", contrail.runs)
    assert "holds" in contrail("train", "clone", *flags, "--batch", "100000").sentence


def endless() -> Experiment:
    return replace(with_history(small(LOCAL, steps=1_000_000)), evaluation_episodes=0)


KILLED = """
import sys
from pathlib import Path
from cluster.experiment import Spaces
from cluster.run import RunOptions, train
from cluster.run_folder import RunFolder
from tests.cluster.test_durable import endless
experiment = endless().checked()
options = RunOptions(checkpoint_seconds=0.5)
train(experiment, Spaces.of(experiment.environment), RunFolder(Path(sys.argv[1])), options, title="killed")
"""


def test_what_a_killed_run_held_is_there_when_it_is_resumed(tmp_path: Path) -> None:
    """As after kill -9: nothing was closed, the live folder is still there."""
    experiment = endless().checked()
    folder = RunFolder.create(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", KILLED, str(folder.path)]) as process:
        wait_for(lambda: folder.checkpoints() and int(folder.latest().name) > 2_000)
        process.kill()
    before = rows_in(folder.path)
    steps = int(folder.latest().name)
    shorter = replace(experiment, steps=steps + 600)
    train(shorter, Spaces.of(experiment.environment), folder, RunOptions(), title="resumed", resume=True)
    rows = [row for row in read_metrics(folder.path) if row["step"] > steps]
    assert rows[0]["replay/history/windows"] > 1000  # not only what came since
    after = rows_in(folder.path)
    assert before <= after  # those that came after the checkpoint, too
    assert {writer.rpartition(".")[2] for writer, _, _ in after} == {"0", "1"}


def rows_in(run: Path) -> set[tuple[str, int, int]]:
    """Writer, stream and row of all that a run's store holds."""
    places = Store.open(run).dataset().to_table(["writer", "stream", "row"])
    return set(zip(*(column.to_pylist() for column in places.columns), strict=True))


def wait_for(true, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)
