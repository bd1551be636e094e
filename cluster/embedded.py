"""Ray itself: joined where a cluster is there, else started inside this process and ended with it."""

import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private import ray_constants, services, utils
from ray._private.node import Node
from ray._private.ray_logging import stdout_deduplicator

from cluster.experiment import ExperimentError
from cluster.world import ProcessDied

LEAN = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
    "RAY_enable_open_telemetry": "0",
    "RAY_worker_niceness": "0",
}
"""Settings of an embedded Ray that nobody else joins: it listens on this machine only, starts in half the time, and its
processes are not put behind everything else on the machine (Ray's own default is a niceness of 15)."""


SERVICES = "start_monitor", "start_log_monitor", "start_api_server"
"""What starts services of Ray's that only others would use, by method of its node: the autoscaler, the reader of logs,
and the dashboard, of which a process is started even without it. Each imports Ray, a second of the processor that the
run's own processes want, too."""

AGENTS = "--dashboard_agent_command", "--runtime_env_agent_command"
"""Of a raylet's command: what starts two more services, which report to a dashboard and install other environments.
Each imports Ray, and a raylet waits until they tell their ports before it starts anything else."""
PORTS = (
    "METRICS_AGENT_PORT_NAME",
    "METRICS_EXPORT_PORT_NAME",
    "DASHBOARD_AGENT_LISTEN_PORT_NAME",
    "RUNTIME_ENV_AGENT_PORT_NAME",
)
"""That they would tell, by what `ray._raylet` calls their names."""
NOBODY = 1
"""A port at which nobody listens."""
IDLE = "import os, time\nwhile os.getppid() == int(os.environ['RAY_RAYLET_PID']):\n    time.sleep(1)"
"""What stands in for either, since a raylet ends when one of them does: a program that waits for the raylet's end."""
TRIED = "2.60."
"""Of Ray, where a raylet was seen to need no more of its agents; of another version they are started as Ray does it."""
WISHES = "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK"
"""Variables by which somebody else gives Ray's processes an environment to be installed."""

NOISE = re.compile(
    "A worker died or was killed|retries remaining|The actor is temporarily unavailable"
    "|worker processes have been started on node"
)
"""Of what Ray prints among a run's own lines, whether it is asked to or not: deaths, of which the run tells itself, and
that there are many actors, which was asked for."""

LINGERS = 5.0
"""Seconds that processes of an embedded Ray are given to end by themselves."""


def start_ray(topology_address: str, *, installs: bool = False) -> None:
    """Join a Ray cluster, or start one inside this process that ends with it.

    Args:
        topology_address: of the cluster; empty: start one.
        installs: whether one that is started must be able to give its processes other environments, as Tune asks for.
    """
    if ray.is_initialized():
        return
    stdout_deduplicator.skip_re = NOISE
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if topology_address:
            _join_ray(topology_address)
        else:
            _embed_ray(installs=installs or any(name in os.environ for name in WISHES))
    finally:
        signal.signal(signal.SIGTERM, on_terminate)  # Ray took it over


def _join_ray(address: str) -> None:
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ValueError, ConnectionError, RuntimeError) as error:
        raise ExperimentError(
            f"no Ray cluster can be joined at {address!r} ({error}): start one with `ray start --head`, or leave out "
            "--topology.address"
        ) from error


def _embed_ray(*, installs: bool) -> None:
    for name, value in LEAN.items():
        os.environ.setdefault(name, value)
    # Its processes find modules where this one does: beside a recipe's own file, for one.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    # Nobody else joins it, so it must not be reached from elsewhere. Without this Ray turns 127.0.0.1 into the
    # machine's own address, and its services listen on every interface.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Under `uv run` they would each be started by another one, from a copy of the working directory.
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False
    idle = not installs and ray.__version__.startswith(TRIED)
    try:
        with _without(*SERVICES), _idle_agents() if idle else nullcontext():
            ray.init(
                "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=512 * 2**20,
                _node_ip_address="127.0.0.1",
            )
    except Exception as error:  # Ray raises bare ones: too slow a start, no memory, no port
        raise ProcessDied(f"Ray did not start: {error}; is the machine overloaded, or short of memory?") from error


@contextmanager
def _without(*services: str) -> Iterator[None]:
    """Inside, a node of Ray starts none of these."""
    own = {service: getattr(Node, service) for service in services}
    for service in services:
        setattr(Node, service, lambda self, **options: None)
    try:
        yield
    finally:
        for service, start in own.items():
            setattr(Node, service, start)


@contextmanager
def _idle_agents() -> Iterator[None]:
    """Inside, the agents of a raylet do nothing."""
    own, lacks = services.start_ray_process, utils.get_dashboard_dependency_error
    idle = subprocess.list2cmdline([sys.executable, "-ISc", IDLE])

    def start(command: list[str], process_type: str, *arguments: Any, **options: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            told = dict(part.split("=", 1) for part in command if "=" in part)
            for name in PORTS:
                port = getattr(_raylet, name)
                _raylet.persist_port(told["--session_dir"], told["--node_id"], port, NOBODY)  # type: ignore[attr-defined]
            command = [f"{what}={idle}" if (what := part.partition("=")[0]) in AGENTS else part for part in command]
        return own(command, process_type, *arguments, **options)

    services.start_ray_process = start
    # It imports all that the agents would, to find whether they could.
    utils.get_dashboard_dependency_error = lambda: None
    try:
        yield
    finally:
        services.start_ray_process, utils.get_dashboard_dependency_error = own, lacks


def end_ray() -> None:
    """Leave the cluster, or end the embedded Ray with all its processes.

    One that Ray ends while its threads compute may hang in its destructors for ever, and keep its memory: it is killed.
    """
    workers = _workers()
    try:
        ray.shutdown()
    finally:
        until = time.monotonic() + LINGERS
        for worker in workers:
            ended = select.poll()
            ended.register(worker, select.POLLIN)
            if not ended.poll(max(0.0, until - time.monotonic()) * 1000):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(worker, signal.SIGKILL)
            os.close(worker)


def _workers() -> list[int]:
    """File descriptors of the processes that an embedded Ray has started; none: the cluster is somebody else's."""
    node: Any = ray._private.worker._global_node
    raylets = node.all_processes.get(ray_constants.PROCESS_TYPE_RAYLET, ()) if node else ()
    workers: list[int] = []
    for raylet in raylets if hasattr(os, "pidfd_open") else ():
        for thread in Path(f"/proc/{raylet.process.pid}/task").glob("*"):
            with suppress(OSError):  # it ended just now, or the kernel does not tell
                for pid in (thread / "children").read_text().split():
                    workers.append(os.pidfd_open(int(pid)))
    return workers
