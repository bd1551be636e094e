"""Runs over processes: however they end, nothing is left and it is said who ended them."""

import gc
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from cluster.distributed import Distributed
from cluster.embedded import start_ray
from cluster.experiment import ExperimentError, Topology
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from cluster.vitals import Vitals
from learners import checkpoint
from recipes.ppo import ppo
from tests.cluster.commands import (
    FAULTY,
    SMALL,
    Contrail,
    Outcome,
    end,
    finish,
    segments_folders,
    session,
    start,
    wait_until,
)
from tests.cluster.worlds import world_of

# Ray's own sockets and subprocesses are still open when their objects are collected.
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.timeout(300),  # seconds each on a quiet machine, but many processes start
]

LINGER = ("ray::DashboardA", "ray::RuntimeEnv")
"""Ray's agents try for a minute to report a killed driver before they end themselves."""

SPREAD = ["--envs", "4", "--rows", "16", "--epochs", "1", "--run.folder", "runs", "--run.name", "run"]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands in the test's folder; those that still run after it are ended."""
    processes: list[subprocess.Popen[str]] = []

    def command(*arguments: object) -> subprocess.Popen[str]:
        processes.append(start(tmp_path, *arguments))
        return processes[-1]

    yield command
    for process in processes:
        end(process)
        process.communicate()


def learns(run: Path) -> bool:
    return (run / "metrics.jsonl").is_file() and len(read_metrics(run)) > 2


def test_ctrl_c_while_importing_is_no_traceback(begin) -> None:
    process = begin("train", "ppo")
    wait_until(lambda: "libtorch" in maps(process.pid), "torch is being imported")
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome == Outcome(130, "", "contrail: interrupted\n")


def maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_ctrl_c_while_starting_ends_in_order_and_the_run_can_be_resumed(begin, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    process = begin("train", "ppo", *SPREAD)
    wait_until(lambda: len(session(process.pid)) > 2, "Ray is being started")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    outcome = finish(process)
    assert outcome.code == 130 and not outcome.error
    assert "stopped; continue with: contrail resume runs/run" in outcome.out
    assert int(RunFolder(run).latest().name) < 1000
    assert not segments_folders(run)


def test_termination_ends_in_order_and_a_kill_leaves_only_what_the_next_run_removes(
    begin, contrail: Contrail, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "run"
    process = begin("train", "ppo", *SPREAD)
    wait_until(lambda: learns(run), "it learns")
    assert len(segments_folders(run)) == 1
    process.terminate()
    outcome = finish(process)
    assert outcome.code == 143 and not outcome.error and "\x1b" not in outcome.out
    assert not segments_folders(run)
    steps = int(RunFolder(run).latest().name)
    process = begin("resume", "runs/run")
    wait_until(lambda: read_metrics(run)[-1]["step"] > steps, "it learns again")
    process.kill()
    assert finish(process, but=LINGER).code == -signal.SIGKILL
    (orphan,) = segments_folders(run)
    assert contrail.train("ppo", "--steps", 16, name="other").code == 0
    assert not orphan.exists()
    assert int(RunFolder(run).latest().name) == steps


OWN = """
from dataclasses import dataclass, replace
import gymnasium
from cluster.experiment import Experiment, Topology
from learners.gradient import Gradient
from learners.objective import Objective, Sum, Term
from learners.objectives.ppo import PPO
from own_parts import WEIGHT
from recipes.ppo import ppo


class Mine(gymnasium.Env):
    def __init__(self):
        self.observation_space = gymnasium.spaces.Box(0, 1, (2,))
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, bool(self.np_random.random() < 0.1), False, {}


@dataclass(frozen=True)
class Curious(Objective):
    group = "mine"

    def terms(self, model, out, batch):
        return {"value_size": Term(out.value.square(), batch["mask"], WEIGHT)}


def mine(*, steps: int = 200, topology: Topology = Topology(actors=2, learners=1)) -> Experiment:
    experiment = ppo("own_recipe:Mine-v0", steps=steps, envs=4, rows=16, topology=topology)
    both = Sum({"ppo": (1.0, PPO()), "mine": (0.1, Curious())})
    return replace(experiment, updates=(Gradient({"fresh": both}),))


gymnasium.register("Mine-v0", entry_point=Mine)
"""


def test_a_recipe_file_brings_its_own_objective_environment_and_modules(
    begin, contrail: Contrail, tmp_path: Path
) -> None:
    (tmp_path / "recipes_of_mine").mkdir()
    (tmp_path / "recipes_of_mine" / "own_recipe.py").write_text(OWN)
    (tmp_path / "recipes_of_mine" / "own_parts.py").write_text("WEIGHT = 0.5")
    outcome = finish(begin("train", "recipes_of_mine/own_recipe.py:mine", "--run.name", "run"))
    assert outcome.code == 0 and not outcome.error
    assert "\x1b" not in outcome.out and "greedy evaluation: mean return " in outcome.out
    run = tmp_path / "runs" / "run"
    assert all(row["mine/value_size"] > 0 for row in read_metrics(run) if "train/value_loss" in row)
    assert {path.name for path in (run / "logs").iterdir()} == {
        "actor-0.log",
        "actor-1.log",
        "learner-0.log",
        "shard-0.log",
    }
    outcome = contrail("evaluate", run, "--episodes", 2)
    assert outcome.code == 0
    assert json.loads((run / "evaluation.json").read_text())["episodes"] == 2


def test_two_runs_at_a_time_do_not_disturb_each_other(begin, tmp_path: Path) -> None:
    flags = ["train", "ppo", *SMALL, "--steps", 300, "--run.folder", "runs"]
    both = [begin(*flags), begin(*flags, "--seed", 2)]
    outcomes = [finish(process) for process in both]
    assert [outcome.code for outcome in outcomes] == [0, 0], [outcome.error for outcome in outcomes]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_cluster_that_is_not_there(contrail: Contrail) -> None:
    outcome = contrail("train", "ppo", "--topology.address", "nonsense", "--run.folder", contrail.runs)
    assert outcome.code == 2
    assert "no Ray cluster can be joined at 'nonsense' (Invalid address format: nonsense): start" in outcome.sentence


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """One Ray for the tests that need none of their own."""
    before = signal.getsignal(signal.SIGTERM)
    start_ray("")
    assert signal.getsignal(signal.SIGTERM) is before
    yield
    ray.shutdown()
    gc.collect()  # while what Ray leaves open is still forgiven


def pid_of(world: Distributed, wanted: str) -> int:
    (process,) = [process for process, name in world.names.items() if name == wanted]
    return ray.get(process.pid.remote())


def test_processes_tell_how_they_are_and_one_that_is_replaced_is_counted(one_ray: None, tmp_path: Path) -> None:
    world = world_of(ppo(envs=4, rows=16, topology=Topology(actors=2, learners=1)), tmp_path)
    assert isinstance(world, Distributed) and world.vitals() == []

    def told(true: Callable[[dict[str, Vitals]], bool]) -> Callable[[], bool]:
        def look() -> bool:
            world.advance()
            return true({vitals.name: vitals for vitals in world.vitals()})

        return look

    with world:
        wait_until(told(lambda known: all(v.state == "runs" for v in known.values())), "all tell")
        known = {vitals.name: vitals for vitals in world.vitals()}
        assert set(known) == {"actor-0", "actor-1", "learner-0", "shard-0", "the weight channel"}
        assert all(v.pid == pid_of(world, name) and v.memory > 2**20 for name, v in known.items())
        assert {"wait", "update"} < set(known["learner-0"].seconds) and "environment" in known["actor-1"].seconds
        wait_until(told(lambda known: (known["shard-0"].rate or 0) > 0), "the shard knows its rate")
        os.kill(known["shard-0"].pid, signal.SIGKILL)
        wait_until(told(lambda known: known["shard-0"].restarts == 1), "the restart is counted")
        assert not world.culprit()


def test_what_was_learned_before_an_environment_failed_is_kept(
    one_ray: None, contrail: Contrail, tmp_path: Path
) -> None:
    flags = [*SMALL[1:], "--topology.actors", 1, "--env", f"{FAULTY}:FaultyRaise-v0"]
    outcome = contrail("train", "ppo", *flags, "--run.folder", tmp_path, "--run.name", "run")
    assert outcome.code == 2
    assert "actor-0: environment 0 of 4 raised ValueError: the cart fell off at step 40" in outcome.sentence
    kept = RunFolder(tmp_path / "run").latest()
    assert checkpoint.load(kept)[1]["steps"] == int(kept.name) == read_metrics(tmp_path / "run")[-1]["step"] > 0
    log = (tmp_path / "run" / "logs" / "failure.log").read_text()
    assert "faulty.py" in log, "the traceback of the actor's process is kept"
    assert " actor-0: EnvironmentFailed: " in (tmp_path / "run" / "logs" / "error.txt").read_text().splitlines()[0]
    assert not segments_folders(tmp_path / "run")


def test_more_gpus_than_the_cluster_has(one_ray: None, tmp_path: Path) -> None:
    experiment = ppo(envs=4, rows=16).checked()
    experiment = replace(experiment, topology=replace(experiment.topology, gpus_per_learner=99))
    with pytest.raises(ExperimentError, match="1 learners with 99 GPUs each want 99, there are"):
        world_of(experiment, tmp_path).__enter__()
