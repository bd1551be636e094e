"""The shipped file for machines of one's own, with the commands of docs/cluster.md: up, doctor, a run, a fault, down.

One Ray serves all tests of this module, and the last of them ends it.
"""

import shlex
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cluster.condition import Condition
from cluster.metrics import read_metrics
from cluster.run_folder import RunFolder
from replay.store import Store
from tests.cluster.commands import HOUSE, wait_until
from tests.cluster.faults import kill, kill_ray, left, start_ray
from tests.cluster.machines import USER, Machine, Machines

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
FILE = "~/onprem.yaml"
DASHBOARD = "http://127.0.0.1:8265"
LATEST = 400.0
"""Seconds that anything may take where several processes of Ray share one slow core."""

NODES = """
import json, time, ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
deadline = time.time() + 300
while sorted(names := [node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]]) != wanted:
    assert time.time() < deadline, names
    time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def head(machines: Machines) -> Iterator[Machine]:
    """The head of a Ray on all machines."""
    pytest.importorskip("aiohttp_cors", reason="jobs need ray[default]")
    head, *others = machines
    shipped = yaml.safe_load((HOUSE / "ray_configs" / "onprem.yaml").read_text())
    shipped["provider"].update(head_ip=head.address, worker_ips=[other.address for other in others])
    machines.laptop.path("onprem.yaml").write_text(yaml.safe_dump(shipped))
    machines.laptop.run("ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token")
    machines.laptop.run(f"ray up --yes {FILE}", seconds=LATEST)
    yield head
    for machine in machines:
        kill_ray(machine)


def wait_for_nodes(machines: Machines, head: Machine) -> None:
    """Wait until Ray's nodes are all machines, each once: a node that died counts until Ray has noticed."""
    program = f"wanted = {[machine.name for machine in machines]}{NODES}"
    head.run(f"RAY_AUTH_MODE=token python -c {shlex.quote(program)}", seconds=LATEST)


def test_all_machines_come_up_and_the_doctor_finds_no_error(machines: Machines, head: Machine) -> None:
    wait_for_nodes(machines, head)
    found = machines.laptop.run(f"ray exec {FILE} 'RAY_AUTH_MODE=token contrail doctor'", seconds=LATEST)
    for words in ("3 of 3 answer", "alike on 3 nodes", "0 errors"):
        assert words in found


def test_nobody_gets_in_without_the_token(machines: Machines, head: Machine) -> None:
    address = f"--address {head.address}:6379"
    wrong = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=wrong"
    commands = {  # side by side, since Ray tries again and again
        machines.laptop.start(f"{wrong} contrail doctor {address}"): "none can be joined",
        machines.laptop.start(f"RAY_AUTH_MODE=disabled ray status {address}"): "token is missing or incorrect",
        head.start(f"{wrong} ray job submit --address {DASHBOARD} -- true"): "Invalid authentication token",
    }
    for command, words in commands.items():
        out, _ = command.communicate(timeout=LATEST)
        assert command.returncode != 0 and words in out, out
    machines.laptop.run(f"RAY_AUTH_MODE=token ray status {address}")


@contextmanager
def dashboard(laptop: Machine) -> Iterator[None]:
    """The head's dashboard, brought to the laptop."""
    tunnel = laptop.start(f"exec ray dashboard {FILE}")
    try:
        listens = f"(: < /dev/tcp/{DASHBOARD.removeprefix('http://').replace(':', '/')}) 2> /dev/null"
        wait_until(lambda: laptop.attempt(listens).code == 0, "the dashboard is there", seconds=LATEST)
        yield
    finally:
        kill(laptop, "ray dashboard|sleep 86400", signal.SIGINT)  # as Ctrl-C would, its ssh too
        tunnel.communicate(timeout=LATEST)


def test_a_run_of_three_machines_that_is_submitted_as_a_job_runs_to_its_end(machines: Machines, head: Machine) -> None:
    train = "contrail train ppo --env CartPole-v1 --envs 8 --steps 4000 --run.name submitted --topology.address auto"
    with dashboard(machines.laptop):
        flags = "--topology.actors 2 --topology.learners 2 --topology.threads 2"  # a machine for each learner
        submit = f"RAY_AUTH_MODE=token ray job submit --address {DASHBOARD} -- {train} {flags}"
        assert "succeeded" in machines.laptop.run(submit, seconds=LATEST)
    status, watch = (head.run(f"contrail {command} submitted") for command in ("status", "watch"))
    assert "\nfinished " in status and "\nfinished " in watch
    run = head.path("runs/submitted")
    assert len(RunFolder(run).checkpoints()) >= 1
    places, here = placed(run), [head.name]
    assert places["driver"] == places["shard"] == places["the weight channel"] == here
    assert len(set(places["learner"])) == 2 and len({*places["learner"], *places["actor"]}) == 3
    store = Store.open(run)
    assert store.dataset().count_rows() >= 4000
    assert {row["staleness/max"] for row in read_metrics(run) if "staleness/max" in row} == {0.0}
    assert not [machine.name for machine in machines if "contrail" in machine.run("ls /dev/shm")]


def placed(run: Path) -> dict[str, list[str]]:
    """On which machines a run's processes were, by kind and in order."""
    condition = Condition.read(run)
    assert condition is not None
    hosts: dict[str, list[str]] = defaultdict(list)
    for process in condition.processes:
        hosts[process.name.partition("-")[0]].append(process.host)
    return dict(hosts)


def test_a_machine_joins_again_when_ray_is_started_there_after_a_kill(machines: Machines, head: Machine) -> None:
    victim = machines[2]
    kill_ray(victim)
    start_ray(victim, machines.laptop.path("onprem.yaml"), head)
    wait_for_nodes(machines, head)


def test_nothing_is_left_after_the_end(machines: Machines, head: Machine) -> None:
    machines.laptop.run(f"ray down --yes {FILE}", seconds=LATEST)
    stop = "ssh -o StrictHostKeyChecking=no {}@{} contrail-env/bin/ray stop"
    stops = [machines.laptop.start(stop.format(USER, machine.address)) for machine in machines if machine is not head]
    for stopped in stops:
        out, _ = stopped.communicate(timeout=LATEST)
        assert stopped.returncode == 0, out
    wait_until(lambda: not any(map(left, machines)), "nothing is left", seconds=LATEST)
