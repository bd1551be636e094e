import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from actors.environments import EnvironmentFailed
from cluster.distributed import Distributed
from cluster.embedded import IDLE, end_ray, start_ray
from cluster.experiment import Experiment, Topology
from recipes.ppo import ppo
from tests.cluster.worlds import same, weights_after, world_of

# Ray's own sockets and subprocesses are still open when their objects are collected.
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """One Ray for all tests here, started and ended as a run starts its own; nothing of it is left."""
    start_ray("")
    hangs = Hanging.remote()
    process = ray.get(hangs.pid.remote())
    yield
    os.kill(process, signal.SIGSTOP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cluster.embedded.LINGERS", 0.5)
        end_ray()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and lives(process):
        time.sleep(0.1)
    assert not lives(process)


@ray.remote(num_cpus=0)
class Hanging:
    """A process that is not able to end, as one may be whose threads compute when Ray ends it."""

    def pid(self) -> int:
        return os.getpid()


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def small(topology: Topology, **flags) -> Experiment:
    return ppo(rows=16, epochs=2, minibatches=2, topology=topology, **flags)


def test_processes_learn_what_one_process_learns(tmp_path: Path) -> None:
    """The loop without Ray specifies the one with it: the same seed, bit for bit."""
    local = weights_after(small(Topology(actors=2, learners=1, local=True)), tmp_path / "local", 3)
    distributed = weights_after(small(Topology(actors=2, learners=1)), tmp_path / "ray", 3)
    assert same(local, distributed)


def test_two_learners_two_shards_two_actors_stay_on_policy_and_repeat_themselves(tmp_path: Path) -> None:
    experiment = small(Topology(actors=2, learners=2, shards=2))
    with world_of(experiment, tmp_path / "a") as world:
        advances = [world.advance() for _ in range(3)]
        world.save(tmp_path / "a" / "checkpoint")
    for advance in advances:
        assert advance.metrics["train/first_ratio_error"] < 1e-4
        assert advance.metrics["staleness/max"] == 0
    from learners import checkpoint

    assert same(checkpoint.load(tmp_path / "a" / "checkpoint")[0], weights_after(experiment, tmp_path / "b", 3))


def test_lag_one_overlaps_and_stays_within_its_bound(tmp_path: Path) -> None:
    with world_of(small(Topology(actors=2, learners=1, max_version_lag=1)), tmp_path) as world:
        lags = [world.advance().metrics["staleness/max"] for _ in range(8)]
    assert max(lags) == 1


def test_a_raising_environment_ends_the_run_with_its_actor_environment_and_step(tmp_path: Path) -> None:
    experiment = small(Topology(actors=1, learners=1), env="tests.actors.counting:CountingRaise-v0")
    world = world_of(experiment, tmp_path)
    with pytest.raises(EnvironmentFailed, match=r"actor-0: environment \d .*last action"), world:
        for _ in range(10):
            world.advance()
    assert not list((tmp_path / "segments").iterdir())


def pids_of(world: Distributed) -> dict[str, int]:
    """Process ids of actors and learners."""
    named = {name: process for process, name in world.names.items() if name.startswith(("actor", "learner"))}
    return {name: ray.get(process.pid.remote()) for name, process in named.items()}


def test_leaving_ends_all_processes(tmp_path: Path) -> None:
    world = world_of(small(Topology(actors=1, learners=1)), tmp_path)
    assert isinstance(world, Distributed)
    with world:
        world.advance()
        pids = list(pids_of(world).values())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def listening_addresses(pids: set[int]) -> set[str]:
    """Addresses at which processes accept connections, as in /proc/net, hexadecimal."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = link.readlink().name
            except OSError:  # closed meanwhile
                continue
            if target.startswith("socket:["):
                sockets.add(target.removeprefix("socket:[").removesuffix("]"))
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def descendants(pid: int) -> set[int]:
    found = {pid}
    parents = {
        int(stat.parent.name): int(stat.read_text().rsplit(")", 1)[1].split()[1])
        for stat in Path("/proc").glob("[0-9]*/stat")
        if stat.exists()
    }
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def test_an_embedded_ray_starts_no_services_that_nobody_asks() -> None:
    commands = []
    for pid in descendants(os.getpid()):
        with suppress(FileNotFoundError, ProcessLookupError):  # one of another test's, which ended just now
            commands.append(Path(f"/proc/{pid}/cmdline").read_text())
    assert any("raylet" in command for command in commands)
    assert not [command for command in commands if "Agent" in command or "dashboard" in command.split("\0")[0]]
    assert sum(IDLE in command.split("\0") for command in commands) == 2


def test_what_stands_in_for_agents_ends_with_the_raylet() -> None:
    program = """
import os, subprocess, sys
idle = subprocess.Popen([sys.executable, "-ISc", sys.argv[1]], env={"RAY_RAYLET_PID": str(os.getpid())})
print(idle.pid, flush=True)
idle.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program, IDLE], stdout=subprocess.PIPE, text=True) as raylet:
        assert raylet.stdout is not None
        idle = int(raylet.stdout.readline())
        time.sleep(0.5)
        assert lives(idle)
        raylet.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and lives(idle):
        time.sleep(0.1)
    assert not lives(idle)


def test_nothing_of_an_embedded_ray_can_be_reached_from_another_machine(tmp_path: Path) -> None:
    with world_of(small(Topology(actors=1, learners=1)), tmp_path) as world:
        world.advance()
        addresses = listening_addresses(descendants(os.getpid()))
    loopback = {"0100007F", "0" * 16 + "FFFF00000100007F", "00000000000000000000000001000000"}
    assert addresses and addresses <= loopback
