"""Processes that die while a run goes on: others take their place, and what is learned is what it would have been."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.environments import EnvironmentFailed
from actors.episodes import Episode
from cluster.distributed import Distributed
from cluster.embedded import start_ray
from cluster.experiment import Experiment, Topology
from cluster.faults import MOST, Faults, cause_of
from cluster.metrics import read_metrics
from cluster.ranks import Ranks
from cluster.run_folder import RunFolder
from cluster.world import ProcessDied
from learners import checkpoint
from recipes.ppo import ppo
from replay.store import Store
from tests.cluster.commands import Contrail, wait_until
from tests.cluster.worlds import same, weights_after, world_of

# Ray's own sockets and subprocesses are still open when their objects are collected.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    start_ray("")
    yield
    ray.shutdown()


def small(topology: Topology, **flags: Any) -> Experiment:
    return ppo(rows=16, epochs=2, minibatches=2, topology=topology, **flags)


def kill(world: Distributed, name: str) -> None:
    os.kill(pid_of(world, name), signal.SIGKILL)


def pid_of(world: Distributed, name: str) -> int:
    return ray.get(process_of(world, name).pid.remote())


def process_of(world: Distributed, name: str) -> Any:
    (process,) = [process for process, known in world.names.items() if known == name]
    return process


def faults_of(run: Path, event: str = "died") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "faults.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_learners_and_channel_that_are_killed_change_nothing(one_ray: None, tmp_path: Path) -> None:
    """Rank 1 dies, then both, then the channel: the weights are those of a run in which nobody died, bit for bit."""
    experiment = small(Topology(actors=2, learners=2, shards=2))
    undisturbed = weights_after(experiment, tmp_path / "undisturbed", 7)
    with world_of(experiment, tmp_path / "run") as world:
        for step in range(7):
            if step == 2:
                kill(world, "learner-1")
            if step == 4:
                kill(world, "learner-0")
                kill(world, "learner-1")
                kill(world, "the weight channel")
            assert world.advance().version == step + 1
        world.save(tmp_path / "run" / "checkpoint")
        restarts = {vitals.name: vitals.restarts for vitals in world.vitals()}
    assert same(checkpoint.load(tmp_path / "run" / "checkpoint")[0], undisturbed)
    assert not list((tmp_path / "run" / "segments").iterdir())
    died = faults_of(tmp_path / "run")
    assert died[0]["process"] == "learner-1" and len(died) == 2
    assert all("crashed or was killed" in fault["cause"] for fault in died)
    assert all(0 < fault["seconds"] < 200 for fault in faults_of(tmp_path / "run", "goes on"))
    assert restarts["learner-0"] == restarts["learner-1"] == 2


def test_an_evaluator_plays_while_others_train_and_if_it_dies_another_does(one_ray: None, tmp_path: Path) -> None:
    """The weights are those of a run in one process without evaluations, bit for bit."""
    topology = Topology(actors=1, learners=1)
    undisturbed = weights_after(small(replace(topology, local=True)), tmp_path / "undisturbed", 4)
    with world_of(small(topology), tmp_path / "run") as world:
        world.advance()
        world.save(tmp_path / "run" / "first")
        world.evaluate(tmp_path / "run" / "first")
        world.advance()
        first = awaited(world)
        pid = pid_of(world, "evaluator")  # while it plays, it does not tell
        world.evaluate(tmp_path / "run" / "first")
        os.kill(pid, signal.SIGKILL)
        world.advance()
        assert [episode.total for episode in awaited(world)] == [episode.total for episode in first]
        assert world.advance().metrics["health/deaths"] == 1
        world.save(tmp_path / "run" / "checkpoint")
        (process,) = [vitals for vitals in world.vitals() if vitals.name == "evaluator"]
        assert process.restarts == 1
    assert len(first) == 10 and same(checkpoint.load(tmp_path / "run" / "checkpoint")[0], undisturbed)
    assert [fault["process"] for fault in faults_of(tmp_path / "run")] == ["evaluator"]
    assert [fault["process"] for fault in faults_of(tmp_path / "run", "goes on")] == ["evaluator"]
    assert (tmp_path / "run" / "logs" / "evaluator.log").exists()


def awaited(world: Distributed) -> list[Episode]:
    """What the evaluator plays."""
    played: list[Episode] = []
    wait_until(lambda: played.extend(world.evaluated() or []) or played, "the evaluation has ended")
    return played


def test_deaths_while_a_run_starts_are_mended_too(
    one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor before its environments are there, and a learner before it kept anything."""
    join, begun = Ranks._join, []

    def disturbed(ranks: Ranks, *arguments: Any) -> None:
        if not begun:
            begun.append(ranks)
            for process, name in ranks._roster.names.items():
                if name in ("actor-0", "learner-0"):
                    ray.kill(process)  # an actor that waits for weights does not tell its id
        join(ranks, *arguments)

    monkeypatch.setattr(Ranks, "_join", disturbed)
    with world_of(small(Topology(actors=1, learners=1)), tmp_path) as world:
        assert [world.advance().version for _ in range(3)] == [1, 2, 3]
    assert {fault["process"] for fault in faults_of(tmp_path)} == {"actor-0", "learner-0"}


@pytest.mark.slow
def test_what_learners_that_died_too_often_kept_is_saved(
    one_ray: None, contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, versions = Distributed.advance, []

    def disturbed(world: Distributed) -> Any:
        versions.append(world.faults.version)
        if len(versions) > 3:
            kill(world, "learner-0")
        return advance(world)

    monkeypatch.setattr(Distributed, "advance", disturbed)
    flags = ["--topology.actors", 1, "--topology.learners", 1, "--envs", 4, "--rows", 16, "--steps", 2000]
    outcome = contrail("train", "ppo", *flags, "--run.folder", contrail.runs, "--run.name", "run")
    assert outcome.code == 1 and "learner-0 died: it crashed or was killed" in outcome.sentence
    assert f"learner-0 ended {MOST} times within" in outcome.error
    saved = checkpoint.load(RunFolder(contrail.runs / "run").latest())[1]
    assert saved["version"] == versions[-1] >= 5, "not only what the last checkpoint had"


@pytest.mark.parametrize("lag", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_every_block_of_an_actor_that_is_killed_is_learned_from_once(lag: int, one_ray: None, tmp_path: Path) -> None:
    """With no lag, the weights are those of a run in which none was killed, bit for bit."""
    experiment = small(Topology(actors=2, learners=1, max_version_lag=lag))
    with world_of(experiment, tmp_path, rows="lz4") as world:
        for step in range(12):
            if step == 3:
                kill(world, "actor-0")  # it tells its id, and dies, after its block
            if step == 6:
                world.save(tmp_path / "checkpoint")  # which waits for what actors tell
                if lag:
                    ray.kill(process_of(world, "actor-0"))  # at once, it may be between a commit and its report
                else:
                    kill(world, "actor-0")
            advance = world.advance()
            assert advance.metrics["staleness/max"] <= lag
        assert advance.metrics["health/deaths"] == 2
        assert advance.metrics["replay/rows_committed"] > 0
        world.save(tmp_path / "checkpoint")
    if lag == 0:
        alone = replace(experiment, topology=replace(experiment.topology, local=True))
        assert same(checkpoint.load(tmp_path / "checkpoint")[0], weights_after(alone, tmp_path / "alone", 12))
    draws = Store.open(tmp_path).draws().to_pydict()
    handed = list(zip(draws["step"], draws["stream"], strict=True))
    assert len(handed) == len(set(handed)) >= 12 * 8, "a block of every stream for every step, none of them twice"
    assert [fault["process"] for fault in faults_of(tmp_path)] == ["actor-0", "actor-0"]


def test_an_environment_that_raises_now_and_then_costs_episodes_and_one_that_always_does_ends_the_run(
    one_ray: None, tmp_path: Path
) -> None:
    """It fails in its 40th step, which an actor that takes another's place reaches as well."""
    experiment = small(Topology(actors=1, learners=1), env="tests.cluster.faulty:FaultyRaise-v0")
    world = world_of(experiment, tmp_path)
    with (
        pytest.raises(EnvironmentFailed, match=r"actor-0: environment 0 .*the cart fell off at step 40") as ended,
        world,
    ):
        for step in range(20):
            assert world.advance().version == step + 1
    assert f"actor-0 ended {MOST} times within" in ended.value.__notes__[0]
    causes = [fault["cause"] for fault in faults_of(tmp_path)]
    assert len(causes) == MOST and all("EnvironmentFailed: actor-0" in cause for cause in causes)
    assert not list((tmp_path / "segments").iterdir())


def test_without_what_learners_kept_the_run_begins_again_from_its_checkpoint(
    one_ray: None, contrail: Contrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when their machine is lost."""
    advance, turns = Distributed.advance, []

    def disturbed(world: Distributed) -> Any:
        turns.append(advance(world))
        if len(turns) == 5:
            for path in world.places.live.glob("learner-0.*"):
                path.unlink()
            kill(world, "learner-0")
        return turns[-1]

    monkeypatch.setattr(Distributed, "advance", disturbed)
    flags = ["--topology.actors", 1, "--topology.learners", 1, "--envs", 4, "--rows", 16, "--steps", 1000]
    folder = ["--run.folder", contrail.runs, "--run.name", "run", "--run.checkpoint-seconds", 0]
    outcome = contrail("train", "ppo", *flags, *folder)
    assert outcome.code == 0, outcome.error
    assert "all learners died, and with them what they kept of their state; all begins again from" in outcome.error
    versions = [row["train/version"] for row in read_metrics(contrail.runs / "run") if "train/version" in row]
    assert versions == sorted(set(versions)) and versions[-1] >= 1000 // 64


def test_a_process_that_dies_again_and_again_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    told: list[str] = []
    faults, death = (
        Faults(tmp_path, told.append),
        ProcessDied("actor-3 died: of hunger", process="actor-3", cause="of hunger"),
    )
    for version in (0, 5, 9):  # five steps between the first two: it may go on
        faults.moved(version)
        faults.died("actor-3", death)
    faults.died("actor-2", death)
    faults.finished("actor-2")
    faults.moved(13)
    with pytest.raises(ProcessDied, match="of hunger") as ended:
        faults.died("actor-3", death)
    assert ended.value.__notes__ == [f"actor-3 ended {MOST} times within 8 learner steps"]
    assert told == 3 * ["actor-3: of hunger; another takes its place"] + ["actor-2: of hunger; another takes its place"]
    assert [line["process"] for line in faults_of(tmp_path, "goes on")] == ["actor-2"], "the other finished nothing"
    assert faults.count == 5 and faults_of(tmp_path)[-1]["cause"] == "of hunger"


@pytest.mark.parametrize(
    ("said", "log", "cause"),
    [
        ("The actor is dead because its node has died. Node Id: 7", "", "its machine was lost"),
        (
            "The actor is temporarily unavailable: RpcError: Socket closed",
            "",
            "it could not be reached: it, its machine or the network between failed",
        ),
        ("Worker exits with an exit code 3.", "", "it ended itself with exit code 3"),
        ("Worker exits with an exit code 1. The process receives a SIGTERM.", "", "somebody sent it SIGTERM"),
        ("connection error code 2. End of file.", "", "it crashed or was killed, perhaps for want of memory"),
        ("connection error code 2.", "Fatal Python error: Segmentation fault\n\nThread", "it crashed (SIGSEGV)"),
    ],
)
def test_causes_of_death(said: str, log: str, cause: str, tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text(log)
    assert cause_of(RuntimeError(said), tmp_path / "x.log") == cause
