"""Runs in which one part is made slow: the verdict names it."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from timeit import timeit

import pytest
import ray

from actors.environments import Environment
from cluster.bottleneck import Verdict
from cluster.distributed import Distributed
from cluster.experiment import Experiment, Topology
from cluster.statistics import Statistics
from cluster.world import World
from learners.gradient import Gradient
from recipes.ppo import ppo
from replay.stopwatch import Stopwatch
from tests.cluster.planted import STEPS, SlowPPO, SlowWeights, slow, starved
from tests.cluster.worlds import world_of


def experiment(folder: Path, **topology) -> Experiment:
    """Small blocks of an environment, and one pass over them, that can be made slow."""
    made = ppo(envs=4, rows=STEPS // 2, topology=Topology(actors=2, learners=1, **topology))
    gradient = Gradient({"fresh": SlowPPO(folder=str(folder))}, epochs=1, minibatches=1)
    place = Environment("tests.cluster.planted:SlowCartPole-v0", {"folder": str(folder)})
    return replace(made, environment=place, updates=(gradient,))


def found(world: World, experiment: Experiment, *, seconds: float = 0.0, steps: int = 3) -> Verdict:
    """The verdict on a few learner steps, after one that began under other conditions; the driver sleeps in between."""
    statistics = Statistics(experiment.checked())
    for number in range(steps + 1):
        time.sleep(seconds)
        advance = world.advance()
        if number:
            statistics.add(advance)
    verdict = statistics.verdict()
    assert verdict is not None
    return verdict


def long(world: World) -> float:
    """Seconds that are long for a learner step of this run, on this machine as it is just now."""
    world.advance()  # whoever starts up is slow, too
    started = perf_counter()
    for _ in range(3):
        world.advance()
    return max(0.3, 2 * (perf_counter() - started))


@pytest.mark.parametrize("fault", ["environment", "learner"])
def test_in_one_process_the_slow_part_is_named(fault: str, tmp_path: Path) -> None:
    local = experiment(tmp_path, local=True)
    with world_of(local, tmp_path / "run") as world, slow(tmp_path, fault, long(world)):
        verdict = found(world, local)
    assert verdict.limit == fault and verdict.share > 0.5 and "--topology.local" in verdict.knob


def test_the_accounts_take_less_than_a_hundredth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ppo(topology=Topology(actors=1, learners=1, local=True))
    watch, statistics, laps, kept = Stopwatch(("write",)), Statistics(whole.checked()), [0], Stopwatch.lap

    def counted(self: Stopwatch, stage: str, until: float | None = None) -> None:
        laps[0] += 1
        kept(self, stage, until)

    with world_of(whole, tmp_path) as world:
        world.advance()
        monkeypatch.setattr(Stopwatch, "lap", counted)
        started = perf_counter()
        advance = world.advance()
        seconds = perf_counter() - started
    monkeypatch.setattr(Stopwatch, "lap", kept)
    lap = min(timeit(lambda: watch.lap("write"), number=1000) for _ in range(5)) / 1000
    tags = min(timeit(lambda: statistics.add(advance), number=10) for _ in range(5)) / 10
    assert laps[0] > 90
    assert laps[0] * lap + tags < 0.01 * seconds, (laps[0], lap, tags, seconds)


@pytest.mark.slow  # what is slow beside what depends on the machine's other users
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's own sockets, when their objects are collected
def test_over_processes_the_slow_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = experiment(tmp_path)

    def planted(*arguments, **options) -> SlowWeights:
        made = SlowWeights(*arguments, **options)
        made.folder = tmp_path
        return made

    monkeypatch.setattr("cluster.troupe.RayWeights", planted)
    with world_of(spread, tmp_path / "run") as world:
        assert isinstance(world, Distributed)
        world.cores = None  # other people's processes may keep them busy
        pid = ray.get(world.shards[0].pid.remote())
        seconds = long(world)
        faults: dict[str, AbstractContextManager[None]] = {
            "environment": slow(tmp_path, "environment", seconds),
            "learner": slow(tmp_path, "learner", seconds),
            "weights": slow(tmp_path, "weights", seconds),
            "replay": starved(pid, max(0.5, seconds)),  # long beside the beat by which it is seen
            "driver": nullcontext(),
        }
        verdicts = {}
        for limit, fault in faults.items():
            with fault:
                verdicts[limit] = found(world, spread, seconds=seconds if limit == "driver" else 0.0)
        with slow(tmp_path, "environment", seconds), slow(tmp_path, "learner", seconds):
            verdicts["turns"] = found(world, spread)
    assert {limit: verdict.limit for limit, verdict in verdicts.items()} == {limit: limit for limit in verdicts}
    assert "--topology.shards" in verdicts["replay"].knob
