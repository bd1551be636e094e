"""Facts of several machines, compared: what differs, and what is too little."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.findings import Finding, error, ok, warning
from cluster.machine_facts import GIB, Machine

LEAST_SHARED_MEMORY = 1.0
"""GiB of /dev/shm below which Ray's objects and a run's live rows hardly fit."""

LEAST_DISK = 5.0
"""GiB of disk below which a run may not end: rows alone take up to 4 (--run.rows-gib)."""

MOST_CLOCK = 1.0
"""Seconds that clocks may differ before logs and curves of several nodes no longer fit together."""

LEAST_BANDWIDTH = 100.0
"""MB/s between nodes: what a network of 1 Gbit/s does. Frames of one fast actor can fill it."""


@dataclass(frozen=True)
class Look:
    """One node, as it was seen from outside.

    Attributes:
        machine: what it says of itself.
        address: at which the others reach it.
        promised_gpus: that Ray thinks it has.
        promised_objects: bytes that Ray's objects may take there.
        asked: our clock when it was asked for its own,
        clock: its own,
        answered: and ours when the answer was there.
        names: the addresses that it has for the others' host names, and for its own; empty where it has none.
        bandwidth: MB/s from it to others, by their names.
    """

    machine: Machine
    address: str
    promised_gpus: int = 0
    promised_objects: int = 0
    asked: float = 0.0
    clock: float = 0.0
    answered: float = 0.0
    names: Mapping[str, str] = field(default_factory=dict)
    bandwidth: Mapping[str, float] = field(default_factory=dict)


def compare(looks: Sequence[Look]) -> Iterator[Finding]:
    """All findings about the nodes of a cluster."""
    yield from _check_versions([look.machine for look in looks])
    for look in looks:
        yield from _check_shared_memory(look)
        yield from _check_disk(look.machine)
        yield from _check_gpus(look)
    if len(looks) > 1:
        yield from _check_clocks(looks)
        yield from _check_names(looks)
        yield from _check_bandwidth(looks)


def _check_versions(machines: Sequence[Machine]) -> Iterator[Finding]:
    alike = []
    for package in dict.fromkeys(package for machine in machines for package in machine.versions):
        found: dict[str, list[str]] = {}
        for machine in machines:
            found.setdefault(_comparable(package, machine.versions.get(package, "")), []).append(machine.name)
        if len(found) == 1:
            alike.append(f"{package} {next(iter(found))}")
            continue
        what = ", ".join(f"{version or 'none'} on {' '.join(names)}" for version, names in found.items())
        yield error("versions", f"{package} differs: {what}", "install the same on all nodes, and start Ray anew")
    if alike:
        where = f"alike on {len(machines)} nodes: " if len(machines) > 1 else ""
        yield ok("versions", where + ", ".join(alike))


def _comparable(package: str, version: str) -> str:
    """What has to be alike of a version: not which Python of a series, nor for which CUDA a torch was built."""
    return ".".join(version.split(".")[:2]) if package == "python" else version.partition("+")[0]


def _check_shared_memory(look: Look) -> Iterator[Finding]:
    size, free, objects = (bytes_ / GIB for bytes_ in (*look.machine.shared_memory, look.promised_objects))
    what = f"{look.machine.name} has {size:.1f} GiB in /dev/shm, {free:.1f} of them free"
    more = "give it more: mount -o remount,size=..., docker's --shm-size, or a memory emptyDir on Kubernetes"
    if size < LEAST_SHARED_MEMORY:
        yield error("shared memory", what, more)
    elif objects > size:
        # Then Ray keeps all of them in files of its temporary folder.
        yield warning("shared memory", f"{what}, too little for Ray's {objects:.1f} GiB of objects", more)
    elif free < LEAST_SHARED_MEMORY:
        yield warning("shared memory", what, "see what is in it: files of runs and Rays that were killed stay")
    else:
        yield ok("shared memory", what)


def _check_disk(machine: Machine) -> Iterator[Finding]:
    for folder, bytes_ in machine.disk.items():
        what = f"{machine.name} has {bytes_ / GIB:.1f} GiB free in {folder}"
        if bytes_ / GIB < LEAST_DISK:
            yield warning("disk", what, "make room, or keep runs elsewhere (--run.folder)")
        else:
            yield ok("disk", what)


def _check_gpus(look: Look) -> Iterator[Finding]:
    name, (known, usable) = look.machine.name, look.machine.gpus
    what = f"{name} has {known} of them, {look.promised_gpus} in Ray's books, and torch can use {usable}"
    todo = "install a torch for its CUDA (python -c 'import torch; print(torch.version.cuda)'), and the driver"
    if usable < look.promised_gpus:
        yield error("GPUs", what, todo)
    elif usable < known:
        # Slurm and containers may have hidden the others on purpose.
        yield warning("GPUs", what, todo)
    elif look.promised_gpus < usable:
        what = f"{name} has {usable}, {look.promised_gpus} in Ray's books"
        yield warning("GPUs", what, f"start its Ray with --num-gpus={usable}")
    elif usable:
        yield ok("GPUs", f"{name} has {usable}, which torch can use")


def _check_clocks(looks: Sequence[Look]) -> Iterator[Finding]:
    """A clock is wrong for sure where it was not between question and answer."""
    worst = 0.0
    for look in looks:
        off = max(look.asked - look.clock, look.clock - look.answered, 0.0)
        worst = max(worst, off)
        if off > MOST_CLOCK:
            yield warning("clocks", f"{look.machine.name} is {off:.1f} s off", "let chrony or systemd-timesyncd set it")
    if worst <= MOST_CLOCK:
        yield ok("clocks", f"less than {MOST_CLOCK:g} s apart")


def _check_names(looks: Sequence[Look]) -> Iterator[Finding]:
    """Learners meet by the address that each has for its own name (gloo); people and tools by the others' names."""
    addresses = {look.machine.name: look.address for look in looks}
    fine = True
    for look in looks:
        for name, address in look.names.items():
            if address == addresses.get(name):
                continue
            fine = False
            own = name == look.machine.name
            what = f"{look.machine.name} takes {'its own name' if own else name} for {address or 'nobody'}"
            todo = f"write {addresses.get(name)} {name} in its /etc/hosts"
            if own:
                yield error("names", f"{what}: learners on several nodes would wait for each other in vain", todo)
            else:
                yield warning("names", what, todo)
    if fine:
        yield ok("names", "every node knows every node's")


def _check_bandwidth(looks: Sequence[Look]) -> Iterator[Finding]:
    for look in looks:
        for other, speed in look.bandwidth.items():
            what = f"{speed:,.0f} MB/s from {look.machine.name} to {other}"
            if speed < LEAST_BANDWIDTH:
                todo = "look for a slow or shared link; nodes in one zone; GLOO_SOCKET_IFNAME for the right interface"
                yield warning("bandwidth", what, todo)
            else:
                yield ok("bandwidth", what)
