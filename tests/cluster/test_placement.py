"""Who waits for room is told what the cluster has; one that Ray ended for want of memory died like others."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.util.placement_group import PlacementGroup

from cluster import placement, roster
from cluster.experiment import Spaces
from cluster.kept import OWNER, forget, keeping_folder
from cluster.placement import NODE, ROLE, SAY_AFTER, Placement, have
from cluster.processes import interface_of
from cluster.roster import Roster
from cluster.topology import Topology
from cluster.weights import ChannelServer
from cluster.world import ProcessDied
from recipes.ppo import ppo
from replay.opening import Places


def node(role: str, cpus: int, *, alive: bool = True, name: str = "") -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Labels": {ROLE: role} if role else {}, "Resources": {"CPU": cpus}}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three nodes of two CPUs, one of them dead."""
    nodes = [node("learners", 2), node("actors", 2), node("actors", 2, alive=False)]
    monkeypatch.setattr(placement.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(placement.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 1.0})
    monkeypatch.setattr(placement.ray, "available_resources", lambda: {"CPU": 1.0})


def test_waiting_is_said_once_in_a_while_and_can_be_given_up(cluster: None) -> None:
    said: list[str] = []
    waiting = Placement(Topology(address="auto"), say=said.append)
    for seconds in (0.0, SAY_AFTER + 1, SAY_AFTER + 2):
        waiting.waits("actor-1", seconds)
    assert [text for text in said if text] == [
        "waiting for room for actor-1: the cluster has 2 nodes with 4 CPUs and 1 GPUs, of which 1 CPUs are free"
    ]
    assert said.count("") == 3, "each time is one to give up"
    said.clear()
    Placement(Topology(), say=said.append).waits("actor-1", 100.0)
    assert said == [], "a Ray of the run's own has the room that it has"


def test_a_role_is_followed_where_its_living_nodes_have_what_is_wanted(cluster: None) -> None:
    assert have("actors", {"CPU": 2.0}) and not have("actors", {"CPU": 3.0})
    assert not have("learners", {"CPU": 1.0, "GPU": 1.0}) and not have("evaluators", {"CPU": 1.0})


def test_an_evaluator_goes_to_nodes_of_its_role_or_wherever_there_is_room(
    cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    anywhere = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
    placed = Placement(Topology(address="auto"), say=print)
    assert placed.joined and placed.evaluator() == anywhere
    monkeypatch.setattr(placement.ray, "nodes", lambda: [node("learners", 2), node("evaluators", 1)])
    assert placed.evaluator() == anywhere | {"label_selector": {ROLE: "evaluators"}}
    assert not Placement(Topology(), say=print).joined


class Group(PlacementGroup):
    """A placement group that comes to be only where there is room: `free` of it on the driver's node, else anywhere."""

    def __init__(self, learners: int, labels: dict[str, str], free: int) -> None:
        self.labels = labels
        self._ready = labels.get(NODE) != "home" or learners <= free

    def wait(self, timeout_seconds: float = 30.0) -> bool:
        return self._ready


@pytest.mark.parametrize(
    ("roles", "cpus", "free", "labels"),
    [
        (("", ""), 2, 2, {NODE: "home"}),
        (("", ""), 2, 1, {}),  # another run has the room
        (("", ""), 1, 1, {}),  # there never was: nothing is tried
        (("learners", "actors"), 2, 2, {ROLE: "learners", NODE: "home"}),
        (("actors", "learners"), 1, 1, {ROLE: "learners"}),
    ],
)
def test_learners_are_beside_the_shards_where_all_have_room(
    roles: tuple[str, str], cpus: int, free: int, labels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Group] = []
    removed: list[Group] = []

    def group(
        bundles: list[dict[str, float]], strategy: str, bundle_label_selector: list[dict[str, str]] | None
    ) -> Group:
        asked.append(Group(len(bundles), (bundle_label_selector or [{}])[0], free))
        return asked[-1]

    nodes = [node(roles[0], cpus, name="home"), node(roles[1], 8, name="there")]
    monkeypatch.setattr(placement.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(placement, "placement_group", group)
    monkeypatch.setattr(placement, "remove_placement_group", removed.append)
    monkeypatch.setattr(Placement, "home", lambda self: "home")
    placed = Placement(Topology(address="auto", actors=1, learners=2, threads=1, gpus_per_learner=0), say=print)
    assert placed._reserved() is asked[-1] and asked[-1].labels == labels
    assert removed == asked[:-1] and len(asked) == (2 if free < cpus else 1)


class Process:
    """What the roster does with a process that it started: it asks for its id."""

    def __init__(self, answer: str) -> None:
        self.pid = SimpleNamespace(remote=lambda: answer)


def test_who_waits_long_for_room_in_a_cluster_lacks_it_till_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered: set[str] = set()

    def wait(references: list[str], **how: Any) -> tuple[list[str], list[str]]:
        return [each for each in references if each in answered], []

    monkeypatch.setattr(roster.ray, "wait", wait)
    experiment, places = ppo(), Places(live=tmp_path, kept=tmp_path)
    spaces = Spaces.of(experiment.environment)
    for address, lacking in (("auto", True), ("", False)):
        placed = Placement(Topology(address=address), say=print)
        known = Roster(experiment, spaces, places=places, logs=tmp_path, placement=placed)
        known._named("evaluator", "nobody waits for this one")
        process = Process("1")
        known._named("actor-0", process)
        assert not known.lacks_room(added=True)
        known._starting = {
            handle: (since - SAY_AFTER - 1, answer) for handle, (since, answer) in known._starting.items()
        }
        assert known.lacks_room(added=False) == lacking and len(known._starting) == 1
        known.not_awaited(process)
        assert known.lacks_room(added=True) == lacking and not known.lacks_room(added=False)
        answered.add("1")
        assert not known.lacks_room(added=True) and known.wait([]) == [], "though its first block may take long"
        answered.clear()


def test_a_process_that_ray_ended_for_want_of_memory_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(reference: str) -> None:
        raise ray.exceptions.OutOfMemoryError("killed due to the node running low on memory")

    monkeypatch.setattr(roster.ray, "wait", lambda references, **how: (references, []))
    monkeypatch.setattr(roster.ray, "get", ended)
    experiment = ppo()
    places = Places(live=tmp_path, kept=tmp_path)
    known = Roster(
        experiment,
        Spaces.of(experiment.environment),
        places=places,
        logs=tmp_path,
        placement=Placement(Topology(), say=print),
    )
    known.names["process"] = "learner-1"
    with pytest.raises(ProcessDied, match=r"^learner-1 died: Ray ended it for want of memory") as death:
        known.result("call", "process")
    assert death.value.process == "learner-1" and known.roll.first == "learner-1"


def test_learners_far_from_the_driver_keep_their_state_apart_from_other_runs_and_leave_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.kept.SHARED_MEMORY", tmp_path / "memory")
    own = tmp_path / "live"
    assert keeping_folder(own, far=False) == own and own.is_dir()
    on_disk = [Path("/none/runs", run, "replay", "segments") for run in ("a", "b")]
    lives = [*on_disk, tmp_path / "memory" / "contrail-a-x1"]  # as on the driver's machine, in its shared memory
    found = [keeping_folder(live, far=True) for live in lives]
    assert [folder.name for folder in found] == ["contrail-a", "contrail-b", "contrail-a-x1"]
    for folder in found:
        (folder / "learner-1").touch()
    (found[2] / OWNER).touch()  # two nodes of one machine: rows are there that were not archived yet
    for live in lives:
        forget(live)
    assert [folder.is_dir() for folder in found] == [False, False, True] and (found[2] / "learner-1").exists()


def test_other_machines_are_those_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    home, other, dead = (digit * 56 for digit in "abc")  # as long as Ray wants
    nodes = [node("", 1, name=home), node("", 1, name=other), node("", 1, name=dead, alive=False)]
    monkeypatch.setattr(placement.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(Placement, "home", lambda self: home)
    assert Placement(Topology(), say=print).elsewhere() == []
    (there,) = Placement(Topology(address="auto"), say=print).elsewhere()
    assert there["scheduling_strategy"].node_id == other and there["num_cpus"] == 0


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo" and interface_of("192.0.2.250") == ""


def test_the_channel_follows_the_newest_learners_and_answers_a_publication_when_it_is_replaced() -> None:
    async def told() -> None:
        channel = ChannelServer()
        first = asyncio.ensure_future(channel.publish(5, [{}], 1))
        await asyncio.sleep(0)
        await channel.publish(6, [{}], 0)  # learners that were replaced
        await channel.publish(4, [{}], 1)  # a late message
        assert (await channel.read(-1, 5))[0] == 5 and not first.done()
        again = asyncio.ensure_future(channel.publish(4, [{}], 2))  # who begin again one step earlier
        await first
        assert await channel.read(4, 4) is None and not again.done()
        await channel.stop()
        await again

    asyncio.run(told())
