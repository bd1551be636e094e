"""What all files that start Ray have in common: `ray start` and its flags, versions, labels, the token."""

import re
import shlex
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from platform import python_version

from cluster.findings import Finding, error, ok, warning

ROLE = "contrail-role"
"""The label of Ray's nodes that says what belongs on them."""

ROLES = ("learners", "actors", "evaluators")
"""Its values: stable nodes, for learners, shards and the driver; nodes that may vanish, for actors; others for those
who play greedy episodes, if one wants to have some."""

OLD_FLAGS = {
    "--redis-address": "write --address",
    "--redis-port": "write --port",
    "--include-webui": "write --include-dashboard",
    "--webui-host": "write --dashboard-host",
    "--enable-object-reconstruction": "leave it out: it is always on",
}
"""Flags of `ray start` that had their day."""

EVERYWHERE = ("0.0.0.0", "::", "*")

RAY_PIN = re.compile(r"(?<![\w-])ray(?:\[[\w,-]*\])?==([\w.]+)")


@dataclass(frozen=True)
class Versions:
    """What is installed here, to compare a file with."""

    ray: str
    python: str

    @classmethod
    def here(cls) -> "Versions":
        """Of this interpreter."""
        return cls(version("ray"), ".".join(python_version().split(".")[:2]))


def _simple_commands(command: str) -> Iterator[list[str]]:
    """The words of each simple command of a line of shell; an open quote raises ValueError."""
    # What another command prints is one value to the flag before it, whatever is piped in there.
    command = re.sub(r"\$\([^()]*\)", "$", command.replace("\\\n", " "))
    lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|()\n")
    lexer.whitespace, lexer.whitespace_split = " \t\r", True
    words: list[str] = []
    for word in lexer:
        if word.strip(";&|()\n"):
            words.append(word)
        else:
            yield words
            words = []
    yield words


def _after_ray(words: list[str]) -> list[str] | None:
    """What follows `ray` in a simple command that starts or stops it, else None."""
    for index, (first, second) in enumerate(pairwise(words), start=1):
        if first.rpartition("/")[2] == "ray" and second in ("start", "stop", "symmetric-run"):
            return words[index:]
    return None


def start_flags(command: str) -> dict[str, str] | None:
    """The flags of a shell command's `ray start` or symmetric-run, not its entry point's; None if it has neither."""
    calls = [call for words in _simple_commands(command) if (call := _after_ray(words)) and call[0] != "stop"]
    return _flags(calls[0][1:]) if calls else None


def _flags(words: list[str]) -> dict[str, str]:
    flags: dict[str, str] = {}
    last = ""
    for word in words:
        if word == "--":
            break
        if word.startswith("--"):
            last, _, value = word.partition("=")
            flags[last] = value
        elif last and not flags[last]:
            flags[last] = word
    return flags


def check_flags(where: str, flags: Mapping[str, str], known: Iterable[str]) -> Iterator[Finding]:
    """Flags of `ray start` that are gone, or that nobody knows."""
    known = set(known)
    for flag in flags:
        if flag in OLD_FLAGS:
            yield error("ray start", f"{where} has {flag}, which is deprecated", OLD_FLAGS[flag])
        elif known and flag not in known:
            close = get_close_matches(flag, known, 1)
            todo = f"did you mean {close[0]}?" if close else "see ray start --help"
            yield error("ray start", f"{where} has {flag}, which this Ray does not know", todo)


def known_flags() -> frozenset[str]:
    """What this machine's `ray start` takes."""
    from ray.scripts.scripts import start

    return frozenset(flag for parameter in start.params for flag in (*parameter.opts, *parameter.secondary_opts))


def check_dashboard(where: str, flags: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the dashboard listens to everybody."""
    host = flags.get("--dashboard-host", "127.0.0.1")
    if host in EVERYWHERE:
        todo = "write --dashboard-host=127.0.0.1, and reach it through `ray dashboard` or ssh"
        yield error("dashboard", f"{where} lets it listen on all interfaces ({host}), and it runs jobs", todo)


def check_tokens(commands: Mapping[str, str]) -> Iterator[Finding]:
    """Whether every call of Ray in shell commands, by where they are, asks for the token."""
    bad = False
    for where, command in commands.items():
        for mode in _auth_modes(command):
            if mode != "token":
                bad = True
                has = f"RAY_AUTH_MODE={mode}" if mode else "no RAY_AUTH_MODE for a call of Ray"
                todo = "write RAY_AUTH_MODE=token: all must agree, and without it who reaches Ray's ports runs anything"
                yield error("token", f"{where} has {has}", todo)
    if not bad:
        yield ok("token", "asked for by every command")


def _auth_modes(command: str) -> Iterator[str]:
    """RAY_AUTH_MODE of each call of Ray: what stands before the call itself, else what was exported before."""
    exported = ""
    for words in _simple_commands(command):
        given = [word.partition("=")[2] for word in words if word.startswith("RAY_AUTH_MODE=")]
        mode = given[-1] if given else exported
        if words[:1] == ["export"]:
            exported = mode
        if _after_ray(words):
            yield mode


def check_token_file(token: Path) -> Iterator[Finding]:
    """Whether there is a token that nobody else can read."""
    if not token.is_file() or not token.read_text().strip():
        todo = f"ray get-auth-token --generate > /dev/null && chmod 600 {token}"
        yield error("token", f"there is none in {token}", todo)
    elif others_read(token):
        yield error("token", f"others on this machine may read {token}", f"chmod 600 {token}")
    else:
        yield ok("token", f"{token}, readable by its owner only")


def others_read(file: Path) -> bool:
    """Whether somebody but its owner may read or write a file."""
    return bool(stat.S_IMODE(file.stat().st_mode) & 0o077)


def label_flag(flags: Mapping[str, str]) -> dict[str, str]:
    """The labels that `--labels` gives."""
    pairs = [pair.partition("=") for pair in flags.get("--labels", "").strip('"').split(",") if pair]
    return {key.strip(): value.strip() for key, _, value in pairs}


def check_labels(where: str, labels: Mapping[str, str], *, spared: bool = False) -> Iterator[Finding]:
    """Whether a node's labels are those that Contrail knows; it has no role where runs are to spare it."""
    for key, value in labels.items():
        if key == ROLE:
            if value not in ROLES:
                yield error("labels", f"{where} has {ROLE}={value}", f"the roles are {', '.join(ROLES)}")
        elif "contrail" in key or get_close_matches(key, [ROLE]):
            yield error("labels", f"{where} has the label {key}, which nothing reads", f"did you mean {ROLE}?")
    if spared and ROLE in labels:
        todo = "give it to others: what of a run is on a head that may restart, the driver for one, dies with it"
        yield warning("labels", f"{where} has a {ROLE}", todo)
    if not spared and ROLE not in labels:
        yield warning("labels", f"{where} has no {ROLE}", f"write one: {' or '.join(ROLES)}")


def check_resources(where: str, resources: Iterable[str]) -> Iterator[Finding]:
    """Whether custom resources are taken for Contrail's, which has none."""
    for name in resources:
        if "contrail" in name.lower() or get_close_matches(name, [ROLE]):
            yield error("labels", f"{where} has the resource {name}, which nothing asks for", f"give it a label {ROLE}")


def check_versions(rays: Mapping[str, str], pythons: Mapping[str, str], here: Versions) -> Iterator[Finding]:
    """Whether Ray and Python are everywhere, by where they are written, those of this machine."""
    if not rays:
        todo = f"pin ray=={here.ray}, or take an image whose tag has the version"
        yield warning("ray", "nothing says which Ray the machines have", todo)
    for where, found in rays.items():
        if found != here.ray:
            yield error("ray", f"{where} has {found}, this machine {here.ray}", "take the same Ray on all machines")
    if rays and set(rays.values()) == {here.ray}:
        yield ok("ray", f"{here.ray}, as on this machine")
    if len(set(pythons.values())) > 1:
        found = ", ".join(f"{python} ({where})" for where, python in pythons.items())
        yield error(
            "python", f"not one version: {found}", "Ray pickles functions: take the same Python on all machines"
        )
    elif pythons and set(pythons.values()) != {here.python}:
        found = next(iter(pythons.values()))
        todo = "start runs from a machine of the cluster (ray exec, ray job submit), not from here"
        yield warning("python", f"the machines have {found}, this one {here.python}", todo)


def pinned_rays(commands: Mapping[str, str]) -> dict[str, str]:
    """The versions of Ray that shell commands install, by where they are."""
    return {where: pin.group(1) for where, command in commands.items() if (pin := RAY_PIN.search(command))}


@dataclass(frozen=True)
class Image:
    """What the name of a container image says."""

    name: str
    ray: str | None
    python: str | None

    @classmethod
    def of(cls, name: str) -> "Image":
        """By its tag, as in `rayproject/ray:2.60.0-py311-gpu`; a port of a registry is none."""
        tag = name.rpartition("/")[2].partition(":")[2]
        ray = re.search(r"\d+\.\d+\.\d+", tag)
        python = re.search(r"py(\d)(\d+)", tag)
        return cls(name, ray.group() if ray else None, ".".join(python.groups()) if python else None)


def check_images(images: Mapping[str, Image], here: Versions) -> Iterator[Finding]:
    """Whether images, by where they are written, have one Ray, that of this machine, and one Python."""
    for where, image in images.items():
        if image.ray is None:
            todo = f"take a tag that has its versions, such as rayproject/ray:{here.ray}-py311"
            yield warning("image", f"{where} is {image.name}, whose tag does not say which Ray is in it", todo)
    rays = {where: image.ray for where, image in images.items() if image.ray}
    pythons = {where: image.python for where, image in images.items() if image.python}
    if rays:
        yield from check_versions(rays, pythons, here)
