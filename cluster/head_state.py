"""Checks of where a cluster's head keeps its state: in a Redis, where a file asks for one, so that it may restart."""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.findings import Finding, error, ok, warning

ADDRESS = re.compile(r"\bRAY_REDIS_ADDRESS=[\"']?([^\s\"';,&]+)")
NAMESPACE = "RAY_external_storage_namespace="
WAITING = "RAY_gcs_rpc_server_reconnect_timeout_s="

OPTIONS = frozenset({"redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace"})
"""Fields of KubeRay's gcsFaultToleranceOptions that are about Redis."""

PATIENCE = 3.0
"""Seconds that a Redis has to answer."""

START = "start it, or write its address: the head does not start without it"


def is_kept(head: str) -> bool:
    """Whether the head's shell commands ask for a Redis."""
    return ADDRESS.search(head) is not None


def check_commands(head: str, workers: str, *, reach: bool) -> Iterator[Finding]:
    """Findings about the Redis that the head's shell commands ask for; none, where they ask for none.

    Args:
        head: all of its commands.
        workers: all of theirs.
        reach: whether it is asked for an answer; not where it is for a network that this machine is not in.
    """
    asked = ADDRESS.search(head)
    if asked is None:
        return
    where = "head_start_ray_commands"
    if NAMESPACE not in head:
        todo = f"write {NAMESPACE}a-name-of-its-own: a cluster that finds another's state takes it for its own"
        yield warning("redis", f"{where} gives the cluster no name in it", todo)
    if "--redis-password" not in head:
        yield error("redis", f"{where} has no --redis-password", "let it have one, and write it: " + WHY_PASSWORD)
    for place, command in ((where, head), ("worker_start_ray_commands", workers)):
        if WAITING not in command:
            todo = f"write {WAITING}600: else nodes give up after a minute, and runs end"
            yield warning("redis", f"{place} does not say how long to wait for the head", todo)
    if reach and "$" not in asked.group(1):  # what a shell's variable is, only the head knows
        yield from check_answer(asked.group(1))


def check_spared(where: str, cpus: object) -> Iterator[Finding]:
    """Whether a head that may restart has no CPUs, which processes of runs would take."""
    if str(cpus) != "0":
        yield warning("redis", f"{where} lets the head have CPUs", "give it none (num-cpus 0): " + WHY_SPARED)


WHY_PASSWORD = "who writes in it can run anything in the cluster"
WHY_SPARED = "what of a run is there dies with it"


def check_answer(address: str) -> Iterator[Finding]:
    """Whether a Redis answers at `host:port`, perhaps with redis:// or (encrypted) rediss:// before it."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    host = host.strip("[]")  # of an IPv6 address
    try:
        said = _answer(host, int(port), encrypted=scheme == "rediss")
    except (OSError, ValueError) as failure:
        yield error("redis", f"none can be reached at {address} ({failure})", START)
        return
    if said.startswith("+PONG"):
        yield error("redis", f"that of {address} asks for no password", "give it requirepass: " + WHY_PASSWORD)
    elif said.startswith("-NOAUTH"):
        yield ok("redis", f"{address} answers, and asks for a password")
    else:
        yield error("redis", f"what answers at {address} is none ({said[:60].strip()!r})", START)


def _answer(host: str, port: int, *, encrypted: bool) -> str:
    """What is said to somebody who gives no password."""
    with (
        socket.create_connection((host, port), timeout=PATIENCE) as plain,
        # It is taken away from the plain one, which closes nothing then.
        ssl.create_default_context().wrap_socket(plain, server_hostname=host) if encrypted else plain as talk,
    ):
        talk.sendall(b"PING\r\n")
        return talk.recv(200).decode(errors="replace")


def check_options(options: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings about KubeRay's gcsFaultToleranceOptions."""
    for field in options:
        if field not in OPTIONS:
            known = ", ".join(sorted(OPTIONS))
            yield error("redis", f"gcsFaultToleranceOptions has {field}, which nothing reads", f"it takes {known}")
    if not options.get("redisAddress"):
        yield error("redis", "gcsFaultToleranceOptions has no redisAddress", "write host:port of a Redis")
    password = options.get("redisPassword") or {}
    if not password:
        yield error("redis", "gcsFaultToleranceOptions has no redisPassword", "write it: " + WHY_PASSWORD)
    elif "value" in password:
        todo = "write valueFrom: {secretKeyRef: {name: ..., key: ...}}"
        yield warning("redis", "its password is written in the manifest", todo)
