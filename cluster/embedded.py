"""Ray itself: joined where a cluster is there, else started inside this process and ended with it."""

import logging
import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
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


DEATHS = re.compile("A worker died or was killed|retries remaining|The actor is temporarily unavailable")
"""Of what Ray prints among a run's own lines, whether it is asked to or not: deaths, of which the run tells itself."""

LINGERS = 5.0
"""Seconds that processes of an embedded Ray are given to end by themselves."""


def start_ray(topology_address: str) -> None:
    """Join a Ray cluster, or start one inside this process that ends with it."""
    if ray.is_initialized():
        return
    stdout_deduplicator.skip_re = DEATHS
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        if topology_address:
            _join_ray(topology_address)
        else:
            _embed_ray()
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


def _embed_ray() -> None:
    for name, value in LEAN.items():
        os.environ.setdefault(name, value)
    # Its processes find modules where this one does: beside a recipe's own file, for one.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    # Nobody else joins it, so it must not be reached from elsewhere. Without this Ray turns 127.0.0.1 into the
    # machine's own address, and its services listen on every interface.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
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


def end_ray() -> None:
    """Leave the cluster, or end the embedded Ray with all its processes.

    One that Ray ends while its threads compute may hang in its destructors for ever, and keep its memory: it is killed.
    """
    left = _descendants(_raylet())
    ray.shutdown()
    until = time.monotonic() + LINGERS
    while left and time.monotonic() < until:
        time.sleep(0.02)
        left = {pid: born for pid, born in left.items() if _born(pid) == born}
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _raylet() -> int:
    """The process that starts an embedded Ray's others; 0: there is none, the cluster is somebody else's."""
    node: Any = ray._private.worker._global_node
    found = node.all_processes.get(ray_constants.PROCESS_TYPE_RAYLET) if node else None
    return found[0].process.pid if found else 0


def _descendants(pid: int) -> dict[int, str]:
    """The processes that one has started, and those that these have: when each was born, by id."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(path.name)):
            children.setdefault(int(fields[1]), []).append(int(path.name))
    found: dict[int, str] = {}
    new = children.get(pid, []) if pid else []
    while new:
        found |= {child: born for child in new if (born := _born(child))}
        new = [grandchild for child in new for grandchild in children.get(child, ())]
    return found


def _born(pid: int) -> str:
    """When a process began, in the kernel's ticks; "": it is no more."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _stat(pid: int) -> list[str]:
    """What the kernel tells of a process, from its state on (proc_pid_stat(5)); empty: it is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
