"""The nodes of a running cluster, looked at: one small actor on each tells its machine's facts."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.embedded import start_ray
from cluster.experiment import ExperimentError
from cluster.findings import Finding, error, ok, warning
from cluster.machine_comparison import Look, compare
from cluster.machine_facts import Machine, resolved
from cluster.ray_commands import EVERYWHERE

MEGABYTES = 64
"""Sent from a node to the next to see how fast that goes: enough for seconds of a slow link."""

PATIENCE = 60.0
"""Seconds that a node has to answer: its first worker process imports Ray."""

NONE_RUNS = "Could not find any running Ray instance"
"""What Ray says where there is none on this machine, and not if there is one that it may not join."""


class Looker:
    """Sits on a node and answers."""

    def machine(self) -> Machine:
        """What the node says of itself."""
        return Machine.this()

    def clock(self) -> float:
        """Seconds since 1970, by its own."""
        return time.time()

    def names(self, names: Sequence[str]) -> dict[str, str]:
        """Its addresses for host names."""
        return {name: resolved(name) for name in names}

    def parcel(self, megabytes: int) -> np.ndarray:
        """Something to send."""
        return np.zeros(megabytes * 1_000_000, np.uint8)

    def fetch(self, parcel: list[Any]) -> float:
        """Seconds until another node's parcel, packed in a list so that Ray does not fetch it before, is here."""
        start = time.perf_counter()
        ray.get(parcel[0])
        return time.perf_counter() - start


def check_cluster(address: str) -> Iterator[Finding]:
    """All findings about the cluster at an address; without one about this machine's, or this machine alone."""
    joined_before = ray.is_initialized()
    if not _listens(address):
        yield error("cluster", f"nobody listens at {address}", "look whether its head runs, and for a firewall between")
        return
    try:
        start_ray(address or "auto")
    except ExperimentError as failure:
        if address or NONE_RUNS not in str(failure):
            todo = "look whether it runs, RAY_AUTH_MODE is that of the cluster, and ~/.ray/auth_token its token"
            yield error("cluster", f"none can be joined at {address or 'auto'} ({failure.__cause__})", todo)
            return
        yield ok("cluster", "none runs here: this machine alone is looked at")
        yield from compare([Look(this := Machine.this(), "", promised_gpus=this.gpus[1])])
        return
    try:
        yield from _check_access()
        looks, lost = look_at_nodes()
        for name, reason in lost.items():
            todo = "look whether Contrail is installed there, at ray status, and at its raylet's log"
            yield error("nodes", f"{name} does not answer ({reason})", todo)
        yield ok("nodes", f"{len(looks)} of {len(looks) + len(lost)} answer")
        yield from compare(looks)
    except RayError as failure:
        yield error("nodes", f"one went away while it was looked at ({_reason(failure)})", "look at ray status")
    finally:
        if not joined_before:
            ray.shutdown()


def _listens(address: str) -> bool:
    """Whether somebody does at host:port, since Ray itself tries for minutes; other addresses are left to Ray."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in host:
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
    except OSError:
        return False
    return True


def _check_access() -> Iterator[Finding]:
    """Who can use the cluster."""
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode == "token":
        yield ok("token", "asked for")
    else:
        todo = "set RAY_AUTH_MODE=token on all nodes before ray start: who reaches its ports can run anything"
        yield warning("token", f"RAY_AUTH_MODE is {mode or 'not set'} here", todo)
    dashboard = _dashboard()
    if dashboard in EVERYWHERE:
        todo = "start the head with --dashboard-host=127.0.0.1"
        yield warning("dashboard", f"it listens on all interfaces ({dashboard})", todo)


def _dashboard() -> str:
    """The host that the dashboard listens at; empty if there is none."""
    from ray._private.worker import get_dashboard_url

    return (get_dashboard_url() or "").rpartition(":")[0].strip("[]")


def look_at_nodes() -> tuple[list[Look], dict[str, str]]:
    """Every node of the cluster that this process has joined, and by their names why others do not answer."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    lookers = [_looker(node["NodeID"]) for node in nodes]
    try:
        answers = [looker.machine.remote() for looker in lookers]
        ray.wait(answers, num_returns=len(answers), timeout=PATIENCE)
        machines = [_machine(answer) for answer in answers]
        there = {index: machine for index, machine in enumerate(machines) if isinstance(machine, Machine)}
        looks = [_look(nodes[index], lookers[index], machine) for index, machine in there.items()]
        names = [look.machine.name for look in looks]
        seen = [lookers[index].names.remote(names) for index in there]
        looks = [replace(look, names=ray.get(found, timeout=PATIENCE)) for look, found in zip(looks, seen, strict=True)]
        pairs = zip(nodes, machines, strict=True)
        lost = {node["NodeManagerHostname"]: reason for node, reason in pairs if isinstance(reason, str)}
        return _with_bandwidth(looks, [lookers[index] for index in there]), lost
    finally:
        for looker in lookers:
            ray.kill(looker)


def _looker(node: str) -> Any:
    there: Any = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=there)(Looker).remote()


def _machine(answer: Any) -> Machine | str:
    """A node's answer, which has had its time, or why there is none: Contrail is not installed there, for one."""
    try:
        machine: Machine = ray.get(answer, timeout=0)
    except RayError as failure:
        return _reason(failure)
    return machine


def _reason(failure: RayError) -> str:
    """Ray's message without the remote traceback before its last line."""
    return (str(failure).strip() or type(failure).__name__).splitlines()[-1].strip()


def _look(node: dict[str, Any], looker: Any, machine: Machine) -> Look:
    asked = time.time()
    theirs = ray.get(looker.clock.remote(), timeout=PATIENCE)
    return Look(
        machine,
        node["NodeManagerAddress"],
        promised_gpus=int(node["Resources"].get("GPU", 0)),
        promised_objects=int(node["Resources"].get("object_store_memory", 0)),
        asked=asked,
        clock=theirs,
        answered=time.time(),
    )


def _with_bandwidth(looks: list[Look], lookers: list[Any]) -> list[Look]:
    """Each node's to the next one, one after the other: together they would measure each other."""
    if len(looks) < 2:
        return looks
    measured = []
    for index, look in enumerate(looks):
        following = (index + 1) % len(looks)
        parcel = lookers[index].parcel.remote(MEGABYTES)
        ray.wait([parcel], timeout=PATIENCE, fetch_local=False)
        try:
            seconds = ray.get(lookers[following].fetch.remote([parcel]), timeout=PATIENCE)
        except GetTimeoutError:  # then it is slower still than what is said
            seconds = PATIENCE
        measured.append(replace(look, bandwidth={looks[following].machine.name: MEGABYTES / seconds}))
    return measured
