"""One seed, one outcome: whatever the timing, and whether or not the run was stopped on its way."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
import torch

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners import checkpoint
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import SmallConv
from learners.objective import Sum
from learners.objectives.clone import Clone
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.update import Average
from recipes.ppo import ppo
from replay.table import Table
from tests.cluster.sleepy import CHANCE
from tests.cluster.worlds import continued, same, weights_after, world_of

# Ray's own sockets and subprocesses are still open when their objects are collected.
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.timeout(600),  # seconds each on a quiet machine, but many processes start
]


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """One Ray for all tests here, started as a run starts its own."""
    from cluster.embedded import start_ray

    start_ray("")
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Dawdling(PPO):
    """Learners, too, take their time, each rank another."""

    def prepare(self, model, batch, group):
        time.sleep(CHANCE.uniform(0, 0.1))
        return super().prepare(model, batch, group)


def dawdling(topology: Topology, pace: str) -> Experiment:
    experiment = ppo(f"tests.cluster.sleepy:{pace}CartPole-v0", rows=16, normalise=True, topology=topology)
    objective = (Dawdling if pace == "Sleepy" else PPO)(Advantages(scale_reward=True))
    gradient = Gradient({"fresh": objective}, lr=0.01, epochs=2, minibatches=2)
    return replace(experiment, updates=(gradient, *experiment.updates[1:]))


@pytest.mark.parametrize(
    ("actors", "learners"),
    [(2, 2), *(pytest.param(*few, marks=pytest.mark.slow) for few in [(1, 1), (2, 1), (1, 2)])],
)
def test_timing_changes_nothing(actors: int, learners: int, tmp_path: Path) -> None:
    topology = Topology(actors=actors, learners=learners)
    awake = replace(topology, local=True) if learners == 1 else topology
    expected = weights_after(dawdling(awake, "Awake"), tmp_path / "awake", 3)
    assert same(weights_after(dawdling(topology, "Sleepy"), tmp_path / "sleepy", 3), expected)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of a small game of 32x32 pixels."""
    folder = tmp_path_factory.mktemp("frames")
    table = Table(batch=8, window=17, stride=16)
    experiment = Experiment(
        environment=Environment("actors.envs:StaticRecall-v0"),
        model=ActorCritic(encoder=SmallConv(16)),
        tables={"fresh": table},
        updates=(Gradient({"fresh": PPO()}),),
        envs=8,
        rows=16,
        steps=1000,
        topology=Topology(actors=1, learners=1, local=True),
    )
    with world_of(experiment, folder, rows="lz4") as world:
        for _ in range(4):
            world.advance()
    return folder


def student(frames: Path, learners: int) -> Experiment:
    """Cloning and CURL from rows that are there: convolutions, slow copies, shifts, shuffles, random draws."""
    objective = Sum({"clone": (1.0, Clone()), "curl": (0.5, Curl())})
    follow = (Average("encoder"), Average("curl.projection"))
    return Experiment(
        environment=Environment("actors.envs:StaticRecall-v0"),
        model=ActorCritic(encoder=SmallConv(16), precision="bf16"),
        tables={"rows": Table(batch=64, select="uniform", capacity=10_000)},
        updates=(Gradient({"rows": objective}, lr=0.01, epochs=2, minibatches=2, then=follow),),
        envs=1,
        rows=1,
        steps=100_000,
        store=str(frames),
        topology=Topology(learners=learners, local=learners == 1),
    )


@pytest.mark.parametrize("learners", [1, 2])
def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not(
    learners: int, frames: Path, tmp_path: Path
) -> None:
    experiment = student(frames, learners)
    whole = weights_after(experiment, tmp_path / "whole", 5)
    weights_after(experiment, tmp_path / "parts", 3)
    assert same(continued(experiment, tmp_path / "parts", 2), whole)
    assert {name for name in whole if name.startswith("random/")} == {f"random/{rank}" for rank in range(learners)}


@pytest.mark.parametrize(("before", "after"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_learners_may_join_and_leave_between_checkpoints(before: int, after: int, tmp_path: Path) -> None:
    """One minibatch, so that it holds the same rows on any number of learners."""

    def experiment(learners: int) -> Experiment:
        topology = Topology(actors=2, learners=learners, local=learners == 1)
        return ppo(rows=16, epochs=3, minibatches=1, topology=topology)

    losses = {}
    weights_after(experiment(before), tmp_path / "before", 2)
    for learners in (before, after):
        folder = Path(shutil.copytree(tmp_path / "before", tmp_path / str(learners)))
        with world_of(experiment(learners), folder, resume=folder / "checkpoint") as world:
            metrics = world.advance().metrics
            losses[learners] = {tag: value for tag, value in metrics.items() if tag.startswith("train/")}
            world.save(folder / "checkpoint")
        states = checkpoint.load(folder / "checkpoint")[0]
        assert {name for name in states if name.startswith("random/")} >= {f"random/{rank}" for rank in range(learners)}
    assert losses[before] == pytest.approx(losses[after], rel=1e-3, abs=1e-4)
    if after > before:
        assert not torch.equal(states["random/0"], states["random/1"])
