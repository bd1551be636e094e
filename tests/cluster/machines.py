"""Machines that one machine pretends: each has its own network, processes, host name, /tmp, /dev/shm, home and sshd.

A machine is a process (boot.sh) in Linux namespaces. All else in it (Ray, for one) is in its process namespace, which
the kernel ends with that process; that one ends when the test does, however it ends. Network and mounts go with the
last process. So nothing on the real machine needs tidying up, and several tests can have machines at the same time.

The first machine is the one that people sit at: it has the checkout, and the bridge to which the others are plugged.
They reach each other and nothing else. What they see besides is this machine's file system, from which Python and its
packages come, as if installed in ~/contrail-env.

The other way round they are not hidden: `ray stop` on the real machine ends the Ray of the pretended ones, too.
"""

import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cluster.commands import HOUSE, Outcome, wait_until

USER = "ubuntu"
"""The user that the shipped file names; pretended, too: it has root's rights, or it could not read all packages."""
HOME = Path("/home", USER)
TOOLS = ("ip", "ssh", "sshd", "ssh-keygen", "rsync", "unshare", "nsenter")
UNSHARE = ("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
NEEDED = "ip link add veth0 type veth peer name veth1 && ip link add bridge type bridge && mount -t tmpfs tmpfs /tmp"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = [folder for folder in sys.path if folder.endswith("-packages")]


class Process(NamedTuple):
    """A process of a machine: its id here, its id there, and its command line (Ray's actors write theirs)."""

    here: int
    there: int
    command: str


class Machine:
    """A pretend machine that runs.

    Args:
        name: its host name.
        address: its IPv4 address.
        disk: what its folders are kept in; they outlast it.
        switch: the machine with the bridge that it is plugged to; None: it is the one.
        folder: where commands stand.
    """

    def __init__(self, name: str, address: str, disk: Path, *, switch: "Machine | None", folder: Path = HOME) -> None:
        self.name, self.address, self.switch, self.folder = name, address, switch, folder
        self._disk = disk
        self.boot()

    def boot(self) -> None:
        """Start it, also again after it went down: with its old disk and an empty /dev/shm."""
        kept = [sys.base_prefix, *PACKAGES, str(HOUSE)]
        self._console = subprocess.Popen(
            [*UNSHARE, "bash", Path(__file__).with_name("boot.sh"), self.name, self._disk, *kept],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": PATH},
            start_new_session=True,  # a Ctrl-C is the test's, which ends them then
        )
        assert self._console.stdout is not None and self._console.stderr is not None
        self._namespace = self._console.stdout.readline().strip()
        assert self._namespace, f"{self.name} does not start: {self._console.stderr.read()}"
        self._first = next(process.here for process in self.processes() if process.there == 1)
        self._plug_in()

    def _plug_in(self) -> None:
        if self.switch is None:
            self._ip("link add bridge type bridge")
            card = "bridge"
        else:
            self.switch._ip(f"link add {self.name} type veth peer name eth0 netns {self._first}")
            self.switch._ip(f"link set {self.name} master bridge up")
            card = "eth0"
        self._ip(f"address add {self.address}/24 dev {card}")
        self._ip(f"link set {card} up")

    def _ip(self, words: str) -> None:
        enter = ["nsenter", "--target", str(self._first), "--net"]
        subprocess.run([*enter, "ip", *words.split()], env={"PATH": PATH}, check=True)

    def path(self, inside: str) -> Path:
        """Where a file of its home is for this machine, e.g. of "runs/name"."""
        return self._disk / "home" / USER / inside

    def link(self, state: str) -> None:
        """Its cable: "down" pulls it out, "up" puts it back; packets are lost, connections are not told."""
        assert self.switch is not None, "the bridge itself has no cable"
        self.switch._ip(f"link set {self.name} {state}")

    def power_off(self) -> None:
        """End it, and all that runs on it, without a warning; its disk stays."""
        self._console.kill()  # with --kill-child the machine's first process, and with that all of them
        self._console.wait()
        for stream in (self._console.stdin, self._console.stdout, self._console.stderr):
            assert stream is not None
            stream.close()
        wait_until(lambda: not self.processes(), f"{self.name} is off")

    def processes(self) -> list[Process]:
        """All that live on it."""
        found = [_process(folder) for folder in Path("/proc").glob("[0-9]*") if _namespace(folder) == self._namespace]
        return [process for process in found if process is not None]

    def start(self, command: str) -> subprocess.Popen[str]:
        """A command of bash's in a login shell of the user's; errors are in the output."""
        names = {"HOME": HOME, "USER": USER, "LOGNAME": USER, "TERM": "dumb", "PATH": PATH}
        return subprocess.Popen(
            ["nsenter", "--target", str(self._first), "--mount", "--uts", "--ipc", "--net", "--pid",
             "env", "--ignore-environment", *(f"{name}={value}" for name, value in names.items()),
             "bash", "--login", "-c", f"cd {self.folder} && {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    def attempt(self, command: str, *, seconds: float = 120.0) -> Outcome:
        """How a command ends."""
        with self.start(command) as process:
            try:
                out, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired as late:
                process.kill()  # what it started there may hold its output open, so that is not waited for
                said = f"{self.name} still works on {command!r} after {seconds:.0f} s: {late.output!r}"
                raise AssertionError(said) from None
        return Outcome(process.returncode, out, "")

    def run(self, command: str, *, seconds: float = 120.0) -> str:
        """What a command prints, which must succeed."""
        outcome = self.attempt(command, seconds=seconds)
        assert outcome.code == 0, f"{command!r} on {self.name} ended with {outcome.code}:\n{outcome.out}"
        return outcome.out

    def send(self, number: signal.Signals, to_whom: Iterable[Process]) -> None:
        """A signal to some of its processes; those that have ended do not mind."""
        for process in to_whom:
            if _namespace(Path("/proc", str(process.here))) == self._namespace:
                os.kill(process.here, number)


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns" / "pid").readlink())
    except OSError:  # it has ended
        return ""


def _process(folder: Path) -> Process | None:
    """A process from its folder in /proc; None: it has ended, though perhaps nobody has asked how."""
    try:
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return None
    if status["State"].startswith(("Z", "X")):
        return None
    return Process(int(folder.name), int(status["NSpid"].split()[-1]), command or status["Name"])


class Machines:
    """A machine to launch from, and those to launch on.

    Args:
        folder: for their disks.
        number: of those to launch on.
    """

    def __init__(self, folder: Path, number: int = 3) -> None:
        names = ["laptop", *(f"machine-{i}" for i in range(number))]
        addresses = ["10.77.0.1", *(f"10.77.0.{10 + i}" for i in range(number))]
        hosts = ["127.0.0.1 localhost", *map(" ".join, zip(addresses, names, strict=True))]
        keys = _keys(folder)
        disks = [folder / name for name in names]
        _make_disk(disks[0], hosts, keys, code=HOUSE)
        for disk in disks[1:]:
            _make_disk(disk, hosts, keys, code=HOME / "contrail")
        _make_laptop(disks[0], keys)
        self.started: list[Machine] = []
        try:
            self.laptop = self._start(names[0], addresses[0], disks[0], switch=None, folder=HOUSE)
            for name, address, disk in zip(names[1:], addresses[1:], disks[1:], strict=True):
                self._start(name, address, disk, switch=self.laptop)
        except BaseException:
            self.close()
            raise

    def _start(self, name: str, address: str, disk: Path, *, switch: Machine | None, folder: Path = HOME) -> Machine:
        machine = Machine(name, address, disk, switch=switch, folder=folder)
        self.started.append(machine)
        return machine

    def __getitem__(self, index: int) -> Machine:
        return self.started[1:][index]

    def __iter__(self) -> Iterator[Machine]:
        return iter(self.started[1:])

    def close(self) -> None:
        """End all of them."""
        for machine in reversed(self.started):
            machine.power_off()


def _keys(folder: Path) -> Path:
    """Two keys, one for people and one for machines, which all share."""
    for name in ("user", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    return folder


def _make_disk(disk: Path, hosts: Sequence[str], keys: Path, *, code: Path) -> None:
    """What is on a machine that a careful person has set up: a user who may come in, and Python's packages."""
    home, ssh = disk / "home" / USER, disk / "etc" / "ssh"
    for folder in (disk / "tmp", home / ".ssh", ssh):
        folder.mkdir(parents=True)
    (disk / "tmp").chmod(0o1777)
    (home / ".ssh").chmod(0o700)
    (disk / "etc" / "hosts").write_text("\n".join(hosts) + "\n")
    (disk / "etc" / "passwd").write_text(f"{USER}:x:0:0::{HOME}:/bin/bash\n" + Path("/etc/passwd").read_text())
    (ssh / "sshd_config").write_text("PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\n")
    shutil.copy(keys / "host", ssh / "ssh_host_ed25519_key")
    shutil.copy(keys / "user.pub", home / ".ssh" / "authorized_keys")
    (home / ".profile").write_text(". ~/.bashrc\n")
    (home / ".bashrc").touch()
    _install(home / "contrail-env", code)


def _make_laptop(disk: Path, keys: Path) -> None:
    """What only the machine that people sit at has: the key, and the environment at hand."""
    home = disk / "home" / USER
    shutil.copy(keys / "user", home / ".ssh" / "id_ed25519")
    (home / ".bashrc").write_text('export PATH="$HOME/contrail-env/bin:$PATH"\n')


def _install(environment: Path, code: Path) -> None:
    """A virtual environment with this Python's packages and Contrail's code of a folder, and no index to ask."""
    venv.create(environment, symlinks=True)
    there = HOME / environment.name / "bin"
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "found.pth").write_text("\n".join([str(code), *PACKAGES]) + "\n")
    for name, module in {"ray": "ray.scripts.scripts", "contrail": "cluster.cli"}.items():
        program = f"#!{there}/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        (environment / "bin" / name).write_text(program)
    (environment / "bin" / "pip").write_text("#!/bin/sh\necho pip: all that this Python has is installed\n")
    for name in ("ray", "contrail", "pip"):
        (environment / "bin" / name).chmod(0o755)


def what_is_missing() -> str:
    """Why machines cannot be pretended here, in a few words; empty if they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root"
    tried = subprocess.run(
        [*UNSHARE, "sh", "-c", NEEDED], env={"PATH": PATH}, capture_output=True, text=True, check=False
    )
    return f"may not make namespaces: {tried.stderr.strip()}" if tried.returncode else ""
