"""More or fewer actors while a run goes on."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import ray

from cluster import checkpoints
from cluster.assembly import shard_of, streams_of
from cluster.condition import Condition
from cluster.distributed import Distributed
from cluster.embedded import start_ray
from cluster.experiment import Experiment, ExperimentError, Spaces, Topology
from cluster.lock import holding
from cluster.run import RunOptions, train
from cluster.run_folder import RunFolder
from cluster.scaling import NotPossible, Scaling, laid_out, with_actors
from cluster.scaling_command import _await
from cluster.status import sentences
from cluster.vitals import of_this_process
from cluster.wishes import Answer, Wishes
from recipes.ppo import ppo
from replay.store import Store
from tests.cluster.commands import Contrail
from tests.cluster.test_replaced import kill, process_of
from tests.cluster.worlds import continued, same, weights_after, world_of

# Ray's own sockets and subprocesses are still open when their objects are collected.
RAY = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::ResourceWarning"), pytest.mark.timeout(300)]


def ray_test(test: Any) -> Any:
    for mark in RAY:
        test = mark(test)
    return test


def small(topology: Topology, **flags: Any) -> Experiment:
    return ppo(rows=16, epochs=2, minibatches=2, topology=topology, **flags).checked()


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    start_ray("")
    yield
    ray.shutdown()


def steps_until(world: Distributed, actors: int, *, seconds: float = 200.0) -> int:
    """Learner steps until a world has so many actors."""
    deadline, steps = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        if world.scale(actors) == actors:
            return steps
        steps += 1
        assert world.advance().metrics["staleness/max"] <= world.experiment.topology.max_version_lag
    raise AssertionError(f"still {world.scaling()}")


@ray_test
@pytest.mark.parametrize("lag", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_actors_come_and_go_and_every_block_is_learned_from_once(
    lag: int, one_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 2 to 4, where one dies before its time and one right after, then to as few as there are shards."""
    experiment = small(Topology(actors=2, learners=1, shards=1 + lag, max_version_lag=lag))
    with world_of(experiment, tmp_path, rows="lz4") as world:
        assert isinstance(world, Distributed)
        world.advance()
        world.scale(4)
        ray.kill(process_of(world, "actor-2"))
        assert "actor-3 start" in world.scaling()
        with monkeypatch.context() as patch, pytest.raises(NotPossible, match="1 times, at last actor-2"):
            patch.setattr("cluster.change.MOST", 1)
            steps_until(world, 4)
        assert world.scaling() == "" and actors_of(world) == ["actor-0", "actor-1"]
        world.scale(4)
        ray.kill(process_of(world, "actor-2"))
        assert steps_until(world, 4) > 0
        kill(world, "actor-3")
        assert world.advance().metrics["health/actors"] == 4
        steps_until(world, 1 + lag)
        version = world.advance().version
        assert actors_of(world) == ["actor-0", "actor-1"][: 1 + lag]
    draws = Store.open(tmp_path).draws().to_pydict()
    handed = Counter(zip(draws["step"], draws["stream"], strict=True))
    assert set(handed) >= {(step, stream) for step in range(version) for stream in range(experiment.envs)}
    assert set(handed.values()) == {1}, "a block of every stream for every step, none of them twice"
    assert not list((tmp_path / "segments").iterdir())


@pytest.mark.slow
@ray_test
def test_after_a_change_episodes_go_on_in_spite_of_a_death_and_a_stop(one_ray: None, tmp_path: Path) -> None:
    """The weights are those of a run in one process that was stopped, and given other actors with the same block."""
    experiment, run, alone = small(Topology(actors=2, learners=1)), tmp_path / "run", tmp_path / "alone"
    with world_of(experiment, run, rows="lz4") as world:
        assert isinstance(world, Distributed)
        world.advance()
        steps_until(world, 4)
        world.advance()
        kill(world, "actor-3")  # after its block
        world.advance()
        version = world.advance().version
        world.save(run / "checkpoint")
        rows = Store(run / "replay" / "log", run / "segments").dataset().to_table().to_pylist()
    assert set(checkpoints.snapshots(run / "checkpoint")) == {0, 1, 2, 3}
    first = {row["writer"]: row for row in rows if row["row"] == 0}
    begun, taken_up = first["actor-3.0-1"], first["actor-3.0-2"]
    new = (begun["stream"] << 32, 0)  # an episode's number says of which stream it is
    assert (begun["episode"], begun["step"]) == new != (taken_up["episode"], taken_up["step"])
    wider, changed = with_actors(experiment, 4), begun["policy_version"]
    weights = continued(wider, run, 2)
    here, wider_here = (replace(each, topology=replace(each.topology, local=True)) for each in (experiment, wider))
    weights_after(here, alone, changed)
    for snapshot in (alone / "checkpoint").glob("actor-*"):
        snapshot.unlink()
    assert same(continued(wider_here, alone, version - changed + 2), weights)


def actors_of(world: Distributed) -> list[str]:
    return [vitals.name for vitals in world.vitals() if vitals.name.startswith("actor")]


def test_numbers_that_do_not_divide_are_refused_and_streams_stay_with_their_shard() -> None:
    experiment = small(Topology(actors=2, learners=1, shards=2))
    with pytest.raises(ExperimentError, match=r"3 actors cannot share 8 environments and 2 shards .*one of 2, 4, 8"):
        with_actors(experiment, 3)
    with pytest.raises(ExperimentError, match="1 actors cannot share"):
        with_actors(experiment, 1)
    for actors in (2, 4, 8):
        layout = with_actors(experiment, actors)
        shards = [shard_of(layout, index) for index in range(actors) for _ in streams_of(layout, index)]
        assert shards == [0] * 4 + [1] * 4


class Slow:
    """A world that needs some looks until it has as many actors as are wanted, or never does."""

    def __init__(self, actors: int, looks: int, never: str = "") -> None:
        self.actors, self.looks, self.never = actors, looks, never

    def scale(self, actors: int) -> int:
        if self.never:
            raise NotPossible(self.never)
        self.looks -= 1
        self.actors = actors if self.looks <= 0 else self.actors
        return self.actors

    def scaling(self) -> str:
        return "waiting for room for actor-2" * (self.looks > 0)


def run_of(path: Path, *flags: str) -> RunFolder:
    """A run folder that nobody trains, with the pulse of one that is trained."""
    folder = RunFolder.create(path)
    arguments = ["--topology.actors", "2", "--topology.learners", "1", *flags]
    folder.save_experiment({"recipe": "ppo", "arguments": arguments})
    processes = [replace(of_this_process(), name="driver")]
    Condition("ppo", "training", "", 0, 100, None, time.time(), 0.0, time.time(), 3.0, processes).write(path)
    return folder


def test_a_wish_comes_true_or_is_refused_and_outlives_the_run(tmp_path: Path) -> None:
    folder, told = run_of(tmp_path / "run"), list[str]()
    running, asking = Scaling(folder, 2, told.append), Wishes(folder)
    experiment = small(Topology(actors=2, learners=1))
    running.look(Slow(2, 1))
    assert asking.answer() == Answer(2, 0.0, "done") and laid_out(experiment, folder) == experiment
    asked, world = asking.ask(4), Slow(2, 3)
    running.look(world)
    assert asking.answer() == Answer(2, asked.asked, "waits", "waiting for room for actor-2")
    assert asking.sentence() == "to have 4 actors: waiting for room for actor-2"
    assert laid_out(experiment, folder).topology.actors == 2, "they come when there is room for them"
    running.look(world)
    running.look(world)
    assert asking.answer() == Answer(4, asked.asked, "done") and asking.pending() is None
    assert laid_out(experiment, folder).topology.actors == 4 and told == ["the run has 4 actors"]
    refused = asking.ask(8)
    running.look(Slow(4, 1, never="no such machine"))
    assert asking.answer() == Answer(4, refused.asked, "refused", "no such machine")
    asking.ask(1)
    assert laid_out(experiment, folder).topology.actors == 1, "fewer at once"
    running.look(object())
    assert told[1:] == [
        "the run has 4 actors, not 8: no such machine",
        "the run has 4 actors, not 1: all is in one process",
    ]


def test_fewer_actors_need_not_wait_for_those_that_find_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_of(tmp_path / "run")
    running, world = Scaling(folder, 4, print), Slow(4, 99)
    (folder.path / "scale.json").write_text(json.dumps({"actors": 2, "asked": time.time() - 60}))
    running.look(world)
    assert not running.fewer(), "no step has ended"
    running.look(world)
    assert not running.fewer(), "a step has just ended"
    monkeypatch.setattr("cluster.scaling.LATE", 0.0)
    assert running.fewer()
    Wishes(folder).ask(2)
    monkeypatch.setattr("cluster.scaling.LATE", 20.0)
    assert not running.fewer(), "perhaps a step ends soon"
    monkeypatch.setattr("cluster.scaling.LATE", 0.0)
    (folder.path / "scale.json").write_text(json.dumps({"actors": 8, "asked": time.time() - 60}))
    assert not running.fewer()


def test_a_wish_that_is_taken_back_too_late_is_done_when_the_run_has_gone_back(tmp_path: Path) -> None:
    """A change whose block is decided comes to pass; what was wished meanwhile comes after it."""
    folder, told = run_of(tmp_path / "run"), list[str]()
    running, asking, world = Scaling(folder, 2, told.append), Wishes(folder), Decided(2)
    asking.ask(4)
    running.look(world)
    back = asking.ask(2)
    running.look(world)
    assert asking.pending() == back, "it has two actors, but not for long"
    running.look(world)
    assert asking.pending() == back and world.actors == 4
    for _ in range(3):
        running.look(world)
    assert asking.answer() == Answer(2, back.asked, "done") and told == ["the run has 2 actors"]


class Decided:
    """A world that takes two looks for a change, and cannot give up one that it has begun."""

    def __init__(self, actors: int) -> None:
        self.actors, self.until, self.left = actors, actors, 0

    def scale(self, actors: int) -> int:
        if self.left:
            self.left -= 1
            self.actors = self.actors if self.left else self.until
        elif actors != self.actors:
            self.until, self.left = actors, 2
        return self.actors

    def scaling(self) -> str:
        return f"block before {self.until} actors" * (self.left > 0)


def test_the_command_waits_for_the_answer(contrail: Contrail, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = run_of(run)
    assert f"{run} is not training" in contrail("scale-actors", run, 4).sentence
    with holding(run):
        outcome = contrail("scale-actors", run, 3)
        assert outcome.code == 2 and "wanted one of 1, 2, 4, 8" in outcome.sentence
        assert contrail("scale-actors", run, 2).out == f"{run} has 2 actors already\n"
        with looking(folder, Slow(2, 3)):
            outcome = contrail("scale-actors", run, 4)
        assert (outcome.code, outcome.out) == (0, f"waiting for room for actor-2\n{run} has 4 actors\n")
        with looking(folder, Slow(4, 1, never="the cart is broken")):
            outcome = contrail("scale-actors", run, 8)
        assert (outcome.code, outcome.out) == (1, f"the cart is broken\n{run} keeps its 4 actors\n")
        Wishes(folder).ask(2)
        condition = Condition.read(run)
        assert condition is not None
        assert "to have 2 actors" in sentences(condition, run, alive=True)
        replace(condition, phase="evaluating").write(run)
        assert "is not training" in contrail("scale-actors", run, 8).sentence


@contextmanager
def looking(folder: RunFolder, world: Slow) -> Iterator[None]:
    """A run's loop, in a thread."""
    over, running = Event(), Scaling(folder, world.actors, list[str]().append)

    def loop() -> None:
        while not over.wait(0.3):
            running.look(world)

    thread = Thread(target=loop)
    thread.start()
    yield
    over.set()
    thread.join()


def test_the_command_tells_when_the_run_ends_first_or_another_wishes(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run")
    wishes = Wishes(folder)
    first = wishes.ask(4)
    assert _await(first, wishes, folder.path, 0.0) == 1, "nobody trains it"
    wishes.ask(8)
    with holding(folder.path):
        assert _await(first, wishes, folder.path, 0.0) == 1


def test_a_run_in_one_process_or_without_actors_has_none_to_scale(contrail: Contrail, tmp_path: Path) -> None:
    run_of(tmp_path / "local", "--topology.local")
    assert "all in one process (--topology.local)" in contrail("scale-actors", tmp_path / "local", 4).sentence


def test_the_loop_of_a_run_looks_at_wishes(tmp_path: Path) -> None:
    """It refuses what cannot be, and goes on."""
    experiment = replace(small(Topology(actors=2, learners=1, local=True), steps=300), evaluation_episodes=0)
    folder = RunFolder.create(tmp_path / "run")
    wish = Wishes(folder).ask(4)
    train(experiment, Spaces.of(experiment.environment), folder, RunOptions(), title="")
    answer = Wishes(folder).answer()
    assert answer == Answer(2, wish.asked, "refused", "all is in one process")
