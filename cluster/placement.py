"""Where a run's processes go."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.experiment import ExperimentError
from cluster.topology import Topology

ROLE = "contrail-role"
"""Label of a node: "learners", "actors" or "evaluators"."""
NODE = "ray.io/node-id"
"""Label that Ray gives each node."""
FREE_AT_ONCE = 2.0
"""Seconds in which a group comes to be where there is room now; Ray takes a fraction of one."""

SAY_AFTER, SAY_EVERY = 20.0, 60.0
"""Seconds after which it is said that a process has not started, and said again: starting takes a while anyway."""


class Placement:
    """Where a run's processes go.

    Shards and the weight channel are on the driver's node, beside the run's folder, so that the store's files need no
    file system that machines share. In a Ray of the run's own everything else is there, too, and nothing is asked for
    but GPUs: processes that take turns may share a core.

    In a cluster, learners form one placement group, a bundle each of their threads and GPUs, as close together as it
    goes: on the driver's node, beside the shards that they read, if all of them have room there at once. An actor takes
    one CPU, wherever there is one. Where nodes are labelled by role (`contrail-role`) and those of each role have room
    for it, they are used for nothing else. All wait until there is a place for them.

    The evaluator takes one CPU when all others have their places: of the nodes of its role if there are any, else
    wherever there is one.

    Args:
        topology: resolved.
        say: hears what is waited for, and an empty text each time that it is still so: then it may raise to give up.
    """

    def __init__(self, topology: Topology, *, say: Callable[[str], object]) -> None:
        self._topology, self._alone, self._say = topology, not topology.address, say
        self._said = 0.0
        self._group: PlacementGroup | None = None
        self._by_role = False

    def check(self) -> None:
        """Raise an ExperimentError where a Ray of the run's own lacks the GPUs: no others will come."""
        topology = self._topology
        wanted, there = topology.learners * topology.gpus_per_learner, int(ray.cluster_resources().get("GPU", 0))
        if self._alone and wanted > there:
            raise ExperimentError(
                f"{topology.learners} learners with {topology.gpus_per_learner} GPUs each want {wanted}, there are "
                f"{there}: lower --topology.learners or --topology.gpus-per-learner"
            )

    def home(self) -> str:
        """The driver's node."""
        return ray.get_runtime_context().get_node_id()

    def elsewhere(self) -> list[dict[str, Any]]:
        """Options of a process on each of the cluster's other nodes that live."""
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]] if self.joined else []
        others = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes if node != self.home()]
        return [{"num_cpus": 0, "scheduling_strategy": strategy} for strategy in others]

    def here(self) -> dict[str, Any]:
        """Options of a process that stays with the driver."""
        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(self.home(), soft=False)}

    def learner(self, rank: int) -> dict[str, Any]:
        """Options of a learner; the first call waits until there is room for all."""
        gpus = self._topology.gpus_per_learner
        if self._alone:
            return self.here() | {"num_gpus": gpus}
        if self._group is None:
            self._group = self._reserved()
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
        return {"num_cpus": self._topology.threads, "num_gpus": gpus, "scheduling_strategy": strategy}

    def actor(self) -> dict[str, Any]:
        """Options of an actor."""
        if self._alone:
            return self.here()
        return {"num_cpus": 1, "scheduling_strategy": "SPREAD"} | (
            {"label_selector": {ROLE: "actors"}} if self._by_role else {}
        )

    def evaluator(self) -> dict[str, Any]:
        """Options of the evaluator."""
        if self._alone:
            return self.here()
        role = {"label_selector": {ROLE: "evaluators"}} if have("evaluators", {"CPU": 1.0}) else {}
        return {"num_cpus": 1, "scheduling_strategy": "SPREAD"} | role

    @property
    def joined(self) -> bool:
        """Whether this is a cluster, where others may have the room that one waits for."""
        return not self._alone

    def _reserved(self) -> PlacementGroup:
        topology = self._topology
        bundle = {"CPU": float(topology.threads), "GPU": float(topology.gpus_per_learner)}
        bundle = {name: number for name, number in bundle.items() if number}
        wanted = {name: number * topology.learners for name, number in bundle.items()}
        self._by_role = have("learners", wanted) and have("actors", {"CPU": float(topology.actors)})
        bundles, labels = [bundle] * topology.learners, {ROLE: "learners"} if self._by_role else {}
        if group := self._beside_shards(bundles, labels, wanted):
            return group
        group = packed(bundles, labels)
        asked = time.monotonic()
        while not group.wait(1):
            self.waits(f"{topology.learners} learners, which want {resources(wanted)}", time.monotonic() - asked)
        return group

    def _beside_shards(
        self, bundles: list[dict[str, float]], labels: dict[str, str], wanted: dict[str, float]
    ) -> PlacementGroup | None:
        """A group on the driver's node, if there is room for all of it now."""
        home = [node for node in ray.nodes() if node["NodeID"] == self.home()]
        if not suffice(home, wanted):
            return None
        group = packed(bundles, labels | {NODE: self.home()})
        if group.wait(FREE_AT_ONCE):
            return group
        remove_placement_group(group)
        return None

    def waits(self, what: str, seconds: float) -> None:
        """Processes have not started yet, for so many seconds: called again and again, and said now and then."""
        if self._alone:  # whatever it is that takes so long, it is not room
            return
        now = time.monotonic()
        if seconds > SAY_AFTER and now - self._said > SAY_EVERY:
            self._said = now
            self._say(self.lacking(what))
        self._say("")

    def lacking(self, what: str) -> str:
        """That processes wait for room, and how much there is; "" in a Ray of the run's own."""
        if self._alone:
            return ""
        nodes = sum(node["Alive"] for node in ray.nodes())
        there, free = (resources(found) for found in (ray.cluster_resources(), ray.available_resources()))
        return f"waiting for room for {what}: the cluster has {nodes} nodes with {there}, of which {free} are free"

    def release(self) -> None:
        """Give the places back."""
        if self._group is not None:
            remove_placement_group(self._group)


def resources(found: dict[str, float]) -> str:
    """CPUs and GPUs in words."""
    return " and ".join(f"{found.get(name, 0):g} {name}s" for name in ("CPU", "GPU") if name == "CPU" or name in found)


def packed(bundles: list[dict[str, float]], labels: dict[str, str]) -> PlacementGroup:
    """A group that is asked for, as close together as it goes, on nodes with these labels."""
    return placement_group(bundles, strategy="PACK", bundle_label_selector=[labels] * len(bundles) if labels else None)


def have(role: str, wanted: dict[str, float]) -> bool:
    """Whether the nodes of a role have what is wanted, be it free or not."""
    return suffice([node for node in ray.nodes() if node["Labels"].get(ROLE) == role], wanted)


def suffice(nodes: list[dict[str, Any]], wanted: dict[str, float]) -> bool:
    """Whether those of the nodes that live have what is wanted, be it free or not."""
    living = [node["Resources"] for node in nodes if node["Alive"]]
    return all(sum(node.get(name, 0) for node in living) >= number for name, number in wanted.items())
