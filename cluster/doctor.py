"""What `contrail doctor` does: a file that starts a cluster, looked at before it does; or a cluster that runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
import yaml

from cluster.findings import Finding, error, show
from cluster.launch_file import check_launch_file
from cluster.manifest_file import check_manifest
from cluster.ray_commands import Versions
from cluster.slurm_file import check_slurm_file


@dataclass(frozen=True)
class Doctor:
    """Look for what would go wrong on a cluster: a line for each finding, and exit code 1 if one is an error.

    With a file (for `ray up`, KubeRay or Slurm) nothing is reached but a Redis that it names: it is read, and what it
    needs here is looked for.
    Without one, all nodes of the cluster that runs are looked at; if none does, this machine.

    Attributes:
        file: for `ray up`, KubeRay or Slurm; leave it out for a running cluster.
        address: of a running cluster, "auto" for the one of this machine; by default that one, if it runs.
    """

    file: tyro.conf.Positional[Path | None] = None
    address: str = ""


def command_doctor(arguments: list[str]) -> int:
    """contrail doctor [FILE] [flags]."""
    options = tyro.cli(Doctor, args=arguments, prog="contrail doctor")
    if options.file is not None:
        return show(check_file(options.file))
    from cluster.node_looks import check_cluster

    return show(check_cluster(options.address))


def check_file(path: Path, here: Versions | None = None) -> Iterator[Finding]:
    """All findings about a file, whichever tool it is for; `here` is what it is compared with."""
    here = here or Versions.here()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as failure:
        yield error("file", f"{path} cannot be read ({failure})", "give a file for ray up, KubeRay or Slurm")
        return
    if path.suffix == ".sh" or "#SBATCH" in text:
        yield from _understood(check_slurm_file(text, here))
    else:
        yield from _check_yaml(path, text, here)


def _check_yaml(path: Path, text: str, here: Versions) -> Iterator[Finding]:
    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError) as failure:  # the second is an impossible date
        yield error("file", f"{path} is no YAML ({failure})", "mend it")
        return
    known = [(values, check) for values in documents if isinstance(values, dict) and (check := _checker(values))]
    for values, check in known:
        yield from _understood(check(values, here))
    if not known:
        todo = "give one with a provider (ray up), of kind RayCluster or RayJob (KubeRay), or a Slurm script"
        yield error("file", f"{path} starts no cluster that the doctor knows", todo)


def _understood(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Findings up to where a file is so wrong that its check stumbles, and one that says so."""
    todo = "compare it with the files in ray_configs"
    try:
        yield from findings
    except (AttributeError, KeyError, TypeError) as failure:
        yield error("schema", f"something in it is of another kind than it should be ({failure})", todo)
    except (ValueError, RuntimeError, OSError) as failure:  # a quote left open; a home, a file out of reach
        yield error("schema", f"something in it cannot be read ({failure})", todo)


def _checker(values: dict[str, Any]) -> Callable[[dict[str, Any], Versions], Iterator[Finding]] | None:
    """What checks a document, by what is in it; None where nothing does."""
    if values.get("kind") in ("RayCluster", "RayJob"):
        return check_manifest
    return check_launch_file if "provider" in values else None
