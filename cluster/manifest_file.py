"""Checks of a KubeRay manifest, without reaching anything: fields are those of KubeRay 1.7's `ray.io/v1`."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cluster import head_state, ray_commands
from cluster.findings import Finding, error, ok, warning
from cluster.ray_commands import Image, Versions


def _fields(names: str) -> frozenset[str]:
    return frozenset(names.split())


CLUSTER = _fields(
    "upgradeStrategy authOptions suspend managedBy autoscalerOptions headServiceAnnotations enableInTreeAutoscaling "
    "gcsFaultToleranceOptions historyServerOptions networkPolicy tlsOptions headGroupSpec rayVersion workerGroupSpecs"
)
HEAD = _fields("template headService enableIngress ingressOptions resources labels rayStartParams serviceType")
GROUP = _fields(
    "suspend groupName replicas minReplicas maxReplicas idleTimeoutSeconds priority resources labels rayStartParams "
    "template scaleStrategy numOfHosts"
)
JOB = _fields(
    "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata clusterSelector submitterConfig "
    "managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode entrypointResources entrypointNumCpus "
    "entrypointNumGpus ttlSecondsAfterFinished preRunningDeadlineSeconds shutdownAfterJobFinishes suspend"
)

OLD_FIELDS = {
    "deletionPolicy": "write deletionStrategy.deletionRules",
    "runtimeEnv": "write runtimeEnvYAML",
    "rayNodeType": "leave it out",
}


def check_manifest(values: Mapping[str, Any], here: Versions) -> Iterator[Finding]:
    """All findings about one RayCluster or RayJob; values of a wrong shape raise what Python raises."""
    kind, spec = values["kind"], values.get("spec")
    if values.get("apiVersion") != "ray.io/v1":
        yield error("schema", f"{kind} has apiVersion {values.get('apiVersion')}", "write ray.io/v1")
    if "ray.io/ft-enabled" in ((values.get("metadata") or {}).get("annotations") or {}):
        yield error("schema", "the annotation ray.io/ft-enabled is deprecated", "write spec.gcsFaultToleranceOptions")
    if kind == "RayJob" and isinstance(spec, dict):
        yield from _check_job(spec)
        spec = spec.get("rayClusterSpec")
        if spec is None and values["spec"].get("clusterSelector"):
            return  # it goes to a cluster that is there
    if isinstance(spec, dict) and "headGroupSpec" in spec:
        yield from _check_cluster(spec, here)
    else:
        yield error("schema", f"the {kind} has no headGroupSpec", "see the files in ray_configs/kuberay")


def _check_fields(where: str, values: Mapping[str, Any], known: frozenset[str]) -> Iterator[Finding]:
    for field in values:
        if field in OLD_FIELDS:
            yield error("schema", f"{where}.{field} is deprecated", OLD_FIELDS[field])
        elif field == "replicas" and where == "headGroupSpec":
            yield error("schema", f"{where}.replicas is deprecated", "leave it out: there is one head")
        elif field not in known:
            yield error(
                "schema", f"{where} has {field}, which KubeRay 1.7 does not know", "see KubeRay's API reference"
            )


def _check_job(spec: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _check_fields("RayJob", spec, JOB)
    strategy = spec.get("deletionStrategy") or {}
    for field in strategy.keys() & {"onSuccess", "onFailure"}:
        yield error("schema", f"deletionStrategy.{field} is deprecated", "write deletionRules")
    if not spec.get("entrypoint") and spec.get("submissionMode") != "InteractiveMode":
        yield error("schema", "the RayJob has no entrypoint", "write one: contrail train ...")
    elif "contrail train" in (entrypoint := spec.get("entrypoint") or "") and "--topology.address" not in entrypoint:
        todo = "add --topology.address auto: without it the run starts a Ray of its own"
        yield warning("entrypoint", "it does not join the cluster", todo)
    try:
        yaml.safe_load(spec.get("runtimeEnvYAML") or "")
    except yaml.YAMLError as broken:
        yield error("schema", f"runtimeEnvYAML is no YAML ({broken})", "mend it")


def _check_cluster(cluster: Mapping[str, Any], here: Versions) -> Iterator[Finding]:
    yield from _check_fields("RayCluster", cluster, CLUSTER)
    head = cluster["headGroupSpec"]
    groups = {"headGroupSpec": head}
    for index, group in enumerate(cluster.get("workerGroupSpecs") or []):
        groups[str(group.get("groupName") or f"workerGroupSpecs[{index}]")] = group
        if not group.get("groupName"):
            yield error("schema", f"workerGroupSpecs[{index}] has no groupName", "write one")
    images: dict[str, Image] = {}
    for name, group in groups.items():
        yield from _check_fields(name, group, HEAD if group is head else GROUP)
        spared = group is head and cluster.get("gcsFaultToleranceOptions") is not None
        yield from _check_group(name, group, spared=spared)
        images |= {f"{name}'s image": Image.of(image) for image in _images(group)}
    yield from ray_commands.check_images(images, here)
    for image in images.values():
        if "example.com/" in image.name:
            yield warning("image", f"{image.name} is an example's", "make your own with ray_configs/kuberay/Dockerfile")
            break
    yield from _check_ray_version(cluster, here)
    yield from _check_token(cluster, groups)
    if (options := cluster.get("gcsFaultToleranceOptions")) is not None:
        yield from head_state.check_options(options)
        yield from head_state.check_spared("headGroupSpec", (head.get("rayStartParams") or {}).get("num-cpus"))
    if head.get("serviceType") in ("LoadBalancer", "NodePort") or head.get("enableIngress"):
        todo = "write serviceType: ClusterIP, and reach it with kubectl port-forward"
        yield error("dashboard", "Ray's ports are opened to the world outside the cluster", todo)


def _check_ray_version(cluster: Mapping[str, Any], here: Versions) -> Iterator[Finding]:
    found = cluster.get("rayVersion")
    if found is None:
        yield error("ray", "there is no rayVersion, which authOptions and the autoscaler go by", f"write {here.ray}")
    elif str(found) != here.ray:
        yield error("ray", f"rayVersion is {found}, this machine has {here.ray}", "take the same Ray on all machines")


def _containers(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    template = group.get("template") or {}
    return [each for each in (template.get("spec") or {}).get("containers") or [] if isinstance(each, dict)]


def _images(group: Mapping[str, Any]) -> list[str]:
    """Of the container that Ray runs in, which is the first."""
    return [str(container["image"]) for container in _containers(group)[:1] if container.get("image")]


def _check_group(name: str, group: Mapping[str, Any], *, spared: bool) -> Iterator[Finding]:
    parameters = group.get("rayStartParams") or {}
    for key, value in parameters.items():
        if not isinstance(value, str):
            yield error("schema", f"{name}.rayStartParams.{key} is {value!r}, wanted a string", f'write "{value}"')
    flags = {f"--{key}": str(value) for key, value in parameters.items()}
    yield from ray_commands.check_flags(f"{name}.rayStartParams", flags, ray_commands.known_flags())
    labels = group.get("labels") or ray_commands.label_flag(flags)
    yield from ray_commands.check_labels(name, labels, spared=spared)
    yield from ray_commands.check_resources(name, group.get("resources") or {})
    containers = _containers(group)
    if not containers:
        yield error("schema", f"{name} has no container", "see the files in ray_configs/kuberay")
        return
    mounted = [mount.get("mountPath") for mount in containers[0].get("volumeMounts") or []]
    if "/dev/shm" not in mounted:
        todo = "mount an emptyDir with medium: Memory there"
        yield error("shared memory", f"{name} has 64 MiB in /dev/shm, as Kubernetes gives it", todo)


def _check_token(cluster: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """By KubeRay's own option, or by the environment of every container that Ray runs in."""
    options = cluster.get("authOptions")
    modes = [
        next((each.get("value") for each in container.get("env") or [] if each.get("name") == "RAY_AUTH_MODE"), None)
        for group in groups.values()
        for container in _containers(group)[:1]
    ]
    # An empty authOptions means token, says KubeRay.
    if (options is not None and options.get("mode", "token") == "token") or (modes and set(modes) == {"token"}):
        yield ok("token", "asked for in all pods")
    else:
        yield error("token", "Ray's ports ask for none", "write authOptions: {mode: token}")
