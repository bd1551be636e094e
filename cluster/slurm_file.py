"""Checks of a Slurm script that starts Ray with `ray symmetric-run`, without reaching anything."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cluster import ray_commands
from cluster.findings import Finding, error, ok, warning
from cluster.ray_commands import Versions, check_token_file, start_flags

FIRST = (2, 49)
"""The Ray that brought symmetric-run."""

OWN = ("--head", "--node-ip-address", "--port", "--block")
"""Flags of `ray start` that symmetric-run gives itself, and refuses."""

SYMMETRIC = frozenset({"--address", "--min-nodes"})
"""Its own flags."""


AUTH_MODE = re.compile(r"\bRAY_AUTH_MODE=[\"']?(\w+)")


def check_slurm_file(text: str, here: Versions) -> Iterator[Finding]:
    """All findings about a script."""
    yield from _check_syntax(text)
    body = _without_comments(text)
    # Only its own line: not all of bash can be taken apart into words.
    run = next((line for line in body.replace("\\\n", " ").splitlines() if "symmetric-run" in line), "")
    flags = start_flags(run)
    if flags is None:
        yield error("ray start", "the script has no ray symmetric-run", "see ray_configs/slurm.sh")
        return
    yield from _check_run(run, flags, here)
    yield from _check_job(text)
    if set(AUTH_MODE.findall(body)) != {"token"}:
        todo = "write export RAY_AUTH_MODE=token: others share the network, and without it they can run anything"
        yield error("token", "Ray's ports ask for none", todo)
    else:
        yield from check_token_file(Path("~/.ray/auth_token").expanduser())


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _check_syntax(text: str) -> Iterator[Finding]:
    bash = shutil.which("bash")
    if bash is None:
        return
    done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        yield error("schema", f"bash cannot read it ({done.stderr.strip()})", "mend it")
    else:
        yield ok("schema", "valid, says bash")


def _check_run(run: str, flags: dict[str, str], here: Versions) -> Iterator[Finding]:
    if tuple(map(int, re.findall(r"\d+", here.ray)[:2])) < FIRST:
        yield error("ray", f"{here.ray} has no symmetric-run", "install Ray 2.49 or newer")
    for flag in flags:
        if flag in OWN:
            yield error("ray start", f"symmetric-run refuses {flag}", "leave it out")
    if "--address" not in flags:
        yield error("ray start", "symmetric-run has no --address", "give it the first node's, with the port")
    others = {flag: value for flag, value in flags.items() if flag not in {*OWN, *SYMMETRIC}}
    yield from ray_commands.check_flags("symmetric-run", others, ray_commands.known_flags())
    yield from ray_commands.check_dashboard("symmetric-run", flags)
    if " -- " not in run.partition("symmetric-run")[2]:
        yield error("entrypoint", "symmetric-run has no --, after which comes what to run", "write -- contrail ...")


def _check_job(text: str) -> Iterator[Finding]:
    options = dict(re.findall(r"^#SBATCH\s+(--?[\w-]+)(?:[= ]\s*(\S+))?", text, re.MULTILINE))
    tasks = options.get("--ntasks-per-node") or options.get("--tasks-per-node")
    if tasks != "1":
        yield error("job", f"{tasks or 'no number of'} tasks a node, wanted 1", "write #SBATCH --ntasks-per-node=1")
    if "--exclusive" not in options:
        todo = "write #SBATCH --exclusive: two Rays on a node would take each other's ports"
        yield warning("job", "others may be on its nodes", todo)
    if (options.get("--nodes") or options.get("-N") or "1") != "1" and "--min-nodes" not in text:
        todo = 'write --min-nodes "$SLURM_JOB_NUM_NODES"'
        yield warning("job", "symmetric-run does not wait for all nodes", todo)
