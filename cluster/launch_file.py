"""Checks of a file for `ray up`, without reaching anything."""

import io
import ipaddress
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from cluster import head_state, ray_commands
from cluster.findings import Finding, error, ok, warning
from cluster.ray_commands import Image, Versions, check_token_file, others_read, start_flags

OLD_KEYS = {
    "head_node": "describe it under available_node_types, and name it in head_node_type",
    "worker_nodes": "describe them under available_node_types",
    "initial_workers": "write min_workers of a node type",
    "autoscaling_mode": "write upscaling_speed",
    "target_utilization_fraction": "leave it out",
}
"""Top-level keys that had their day."""

HEAD, WORKERS = "head_start_ray_commands", "worker_start_ray_commands"
"""Where the shell commands are that start Ray."""

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    HEAD,
    WORKERS,
)

EXAMPLES = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
"""Addresses that belong to nobody: RFC 5737."""

OLD_AUTOSCALER = "RAY_UP_enable_autoscaler_v2"
"""Set to 0 where `ray up` is called, it lets the older autoscaler start."""

TOKEN = "/.ray/auth_token"
"""Where Ray looks for the token, in a home."""

EXAMPLE_IMAGE = "ami-0123456789abcdef0"


def check_launch_file(values: dict[str, Any], here: Versions) -> Iterator[Finding]:
    """All findings about the values of a file for `ray up`; values of a wrong shape raise what Python raises."""
    values, old = _without_old_keys(values)
    yield from old
    yield from _check_schema(values)
    commands = _commands(values)
    yield from _check_versions(values, commands, here)
    yield from _check_key(values.get("auth") or {}, values["provider"]["type"])
    yield from _check_mounts(values.get("file_mounts") or {})
    yield from ray_commands.check_tokens(commands)
    yield from _check_starts(values)
    yield from _check_head_state(values)
    yield from _check_provider(values)
    yield from _check_node_types(values)
    yield from _check_examples(values)


def _without_old_keys(values: dict[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """The values without deprecated keys, so that the schema does not name them again."""
    old = dict(OLD_KEYS)
    if values["provider"].get("type") != "local":
        old["min_workers"] = "write min_workers of a node type"
    findings = [error("schema", f"{key} is deprecated", old[key]) for key in values if key in old]
    values = {key: value for key, value in values.items() if key not in old}
    docker = values.get("docker")
    if isinstance(docker, dict) and "pull" in docker:
        findings.append(error("schema", "docker.pull is deprecated", "write pull_before_run"))
        values["docker"] = {key: value for key, value in docker.items() if key != "pull"}
    return values, findings


def _check_schema(values: dict[str, Any]) -> Iterator[Finding]:
    """What Ray's own validator says, which `ray up` asks first."""
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError as missing:
        yield warning("schema", f"not validated: {missing}", "install the Ray of the cluster here")
        return
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            validate_config(prepare_config(values))
    except Exception as failure:  # noqa: BLE001 - the validator stumbles over broken values in all ways
        message = getattr(failure, "message", "") or str(failure) or said.getvalue() or type(failure).__name__
        path = ".".join(str(part) for part in getattr(failure, "absolute_path", ()))
        yield error(
            "schema", f"Ray refuses {path or 'the file'} ({message.strip()[:300]})", "see the files in ray_configs"
        )
    else:
        yield ok("schema", "valid, says Ray")


def _commands(values: Mapping[str, Any]) -> dict[str, str]:
    """All shell commands, by where they are."""
    return {f"{name}[{i}]": str(text) for name in COMMANDS for i, text in enumerate(values.get(name) or [])}


def _check_versions(values: Mapping[str, Any], commands: Mapping[str, str], here: Versions) -> Iterator[Finding]:
    docker = values.get("docker") or {}
    images = {
        f"docker.{key}": Image.of(docker[key]) for key in ("image", "head_image", "worker_image") if docker.get(key)
    }
    for name, node in values.get("available_node_types", {}).items():
        if image := (node.get("docker") or {}).get("worker_image"):
            images[f"{name}.docker.worker_image"] = Image.of(image)
    yield from ray_commands.check_images(images, here)
    pins = ray_commands.pinned_rays(commands)
    if pins or not images:
        yield from ray_commands.check_versions(pins, {}, here)


def _check_key(auth: Mapping[str, Any], provider: str) -> Iterator[Finding]:
    if "ssh_private_key" not in auth:
        if provider == "local":
            todo = "write auth.ssh_private_key: the head needs a copy of it to start the others"
            yield warning("ssh key", "none is given", todo)
        return
    key = Path(auth["ssh_private_key"]).expanduser()
    if not key.is_file():
        yield error(
            "ssh key", f"there is no {key}", f"ssh-keygen -t ed25519 -f {key}, and ssh-copy-id it to the machines"
        )
    elif others_read(key):
        yield error("ssh key", f"others may read {key}, so ssh will not take it", f"chmod 600 {key}")
    else:
        yield ok("ssh key", f"{key}, readable by its owner only")


def _check_mounts(mounts: Mapping[str, str]) -> Iterator[Finding]:
    for remote, local in mounts.items():
        if not Path(local).expanduser().exists() and not remote.endswith(TOKEN):
            todo = "stand at the top of the checkout, where the paths begin, or change file_mounts"
            yield error("files", f"there is no {local}, to be put at {remote}", todo)
    shipped = [local for remote, local in mounts.items() if remote.endswith(TOKEN)]
    if not shipped:
        todo = "write file_mounts: {~/.ray/auth_token: ~/.ray/auth_token}"
        yield error("token", "it is not shipped to the machines", todo)
    for local in shipped:
        yield from check_token_file(Path(local).expanduser())


def _text(values: Mapping[str, Any], name: str) -> str:
    """All shell commands of one place."""
    return "\n".join(map(str, values.get(name) or []))


def _check_starts(values: Mapping[str, Any]) -> Iterator[Finding]:
    """The `ray start` of the head and of the others."""
    known = ray_commands.known_flags()
    kept = head_state.is_kept(_text(values, HEAD))
    for name, wanted in (
        (HEAD, "--autoscaling-config"),
        (WORKERS, "--address"),
    ):
        starts = [flags for text in values.get(name) or [] if (flags := start_flags(str(text))) is not None]
        if not starts:
            yield error("ray start", f"{name} has none", "see the files in ray_configs")
        for flags in starts:
            yield from ray_commands.check_flags(name, flags, known)
            yield from ray_commands.check_dashboard(name, flags)
            if wanted not in flags:
                todo = "write it: without it the machines do not come together"
                yield error("ray start", f"{name} has no {wanted}", todo)
            if values["provider"]["type"] == "local":
                labels = ray_commands.label_flag(flags)
                yield from ray_commands.check_labels(name, labels, spared=kept and name == HEAD)


def _check_head_state(values: Mapping[str, Any]) -> Iterator[Finding]:
    head = _text(values, HEAD)
    # What a cloud sells listens in the cloud's network only.
    yield from head_state.check_commands(head, _text(values, WORKERS), reach=values["provider"]["type"] == "local")
    if head_state.is_kept(head):
        node = values.get("available_node_types", {}).get(values.get("head_node_type")) or {}
        # Ray takes those of a node type instead of the flag.
        cpus = (start_flags(head) or {}).get("--num-cpus")
        yield from head_state.check_spared(HEAD, (node.get("resources") or {}).get("CPU", cpus))


def _check_provider(values: Mapping[str, Any]) -> Iterator[Finding]:
    provider = values["provider"]
    if provider["type"] == "local":
        yield from _check_own_machines(provider, _text(values, HEAD))
    for rule in (provider.get("security_group") or {}).get("IpPermissions") or []:
        ranges = [net.get("CidrIp") for net in rule.get("IpRanges", [])]
        ranges += [net.get("CidrIpv6") for net in rule.get("Ipv6Ranges", [])]
        if rule.get("FromPort") != 22 and {"0.0.0.0/0", "::/0"} & set(ranges):
            ports = f"{rule.get('FromPort')}-{rule.get('ToPort')}"
            todo = "leave the rule out: the machines reach each other without, and you reach them through ssh"
            yield error("ports", f"the security group opens {ports} to everybody", todo)


def _check_own_machines(provider: Mapping[str, Any], head_start: str) -> Iterator[Finding]:
    others = provider.get("worker_ips") or []
    if provider.get("head_ip") in others:
        yield error("machines", f"the head, {provider['head_ip']}, is in worker_ips, too", "take it out there")
    if len(set(others)) < len(others):
        yield error("machines", "worker_ips has an address twice", "write each once")
    # `ray up` exports the first on the head unless the second forbids it; what the command itself sets comes later.
    if "RAY_enable_autoscaler_v2=0" in head_start or os.environ.get(OLD_AUTOSCALER) == "0":
        yield ok("autoscaler", "the older one, which knows machines of your own")
    else:
        todo = f"put RAY_enable_autoscaler_v2=0 before ray start, or {OLD_AUTOSCALER}=0 before ray up"
        yield error("autoscaler", "the newer one does not start all machines of your own (Ray issue 57153)", todo)


def _check_node_types(values: Mapping[str, Any]) -> Iterator[Finding]:
    kept = head_state.is_kept(_text(values, HEAD))
    for name, node in values.get("available_node_types", {}).items():
        labels = node.get("labels") or {}
        spared = kept and name == values.get("head_node_type")
        yield from ray_commands.check_labels(name, labels, spared=spared)
        yield from ray_commands.check_resources(name, node.get("resources") or {})
        if labels.get(ray_commands.ROLE) == "learners" and _is_spot(node.get("node_config") or {}):
            todo = "take a stable one: a run ends with its learners"
            yield warning("labels", f"{name} is for learners, on a machine that may vanish", todo)


def _is_spot(node: Mapping[str, Any]) -> bool:
    scheduling = node.get("scheduling") or {}
    parts = scheduling if isinstance(scheduling, list) else [scheduling]
    bought = any(part.get("preemptible") or part.get("provisioningModel") == "SPOT" for part in parts)
    return bought or (node.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"


def _check_examples(values: Mapping[str, Any]) -> Iterator[Finding]:
    """What stands in the shipped files for values that only you know."""
    provider = values["provider"]
    for address in [provider.get("head_ip"), *(provider.get("worker_ips") or [])]:
        if _is_example(address):
            yield warning("machines", f"{address} is an example's address", "write your own")
    if provider["type"] == "gcp" and not provider.get("project_id"):
        yield warning("machines", "provider.project_id is empty", "write your project's")
    for name, node in values.get("available_node_types", {}).items():
        if (node.get("node_config") or {}).get("ImageId") == EXAMPLE_IMAGE:
            yield warning("machines", f"{name} has the example's ImageId", "write one of your region")


def _is_example(address: object) -> bool:
    try:
        return any(ipaddress.ip_address(str(address)) in net for net in EXAMPLES)
    except ValueError:  # a name
        return False
