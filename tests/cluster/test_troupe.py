"""The actors of a run as one, in this process: what they are told, and which snapshots a checkpoint has."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from actors.actor import Report
from cluster.experiment import Spaces, Topology
from cluster.faults import Faults
from cluster.roster import Roster
from cluster.snapshots import Snapshots
from cluster.troupe import Troupe
from cluster.world import ProcessDied
from recipes.ppo import ppo
from replay.opening import Places


class Call:
    """A method of a process: a call gives its answer when it is heard."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer

    def remote(self, *given: Any, **named: Any) -> Callable[[], Any]:
        return lambda: self.answer(*given, **named)


class Player:
    """An actor's process: its blocks, one after another, with their snapshots."""

    def __init__(self, name: str, block: int, snapshot: bytes | None) -> None:
        self.name, self.block, self.began, self.dies = name, block, snapshot, False
        self.start, self.collect, self.lay_down = Call(lambda: None), Call(self._collect), Call(lambda: None)
        self.take_up = SimpleNamespace(remote=self._take_up)

    def _collect(self) -> Report:
        if self.dies:
            raise ProcessDied(self.name, process=self.name)
        self.block += 1
        return Report(self.name, self.block - 1, self.block - 1, 0, [], {}, f"{self.name}, {self.block}".encode())

    def _take_up(self, experiment: Any, *, shard: Any, start_block: int, life: int, snapshot: bytes | None) -> None:
        self.block, self.began = start_block, snapshot


class Stage(Roster):
    """A roster of such processes."""

    def __init__(self) -> None:
        self.experiment = ppo(rows=16, topology=Topology(actors=2, learners=1)).checked()
        self.spaces, self.places = Spaces.of(self.experiment.environment), Places(live=Path(), kept=Path())
        self.lives, self.players = Counter[str](), dict[str, Player]()

    def actor(self, index: int, experiment: Any, *, start_block: int, snapshot: bytes | None, **same: Any) -> Player:
        player = Player(f"actor-{index}", start_block, snapshot)
        self.lives[player.name] += 1
        self.players[player.name] = player
        return player

    def wait(self, references: list[Any]) -> list[Any]:
        return references[:1]

    def result(self, reference: Any, process: Any) -> Any:
        return reference()

    def release(self, process: Any) -> None:
        del self.players[process.name]

    dismiss = release


def test_snapshots_follow_the_actors_from_one_layout_to_the_next(tmp_path: Path) -> None:
    """From 2 actors to 1 with block 1; then that one dies, after its first block."""
    (tmp_path / "logs").mkdir()
    stage, blocks = Stage(), list[int]([1, 2])  # that the shard has when it is asked
    troupe = Troupe(stage, Faults(tmp_path, lambda text: None), ahead=0)
    shard = SimpleNamespace(fence=Call(lambda streams, writer, former: blocks.pop(0)))
    troupe.begin(None, [shard], Snapshots({}, 0, print), 0)
    troupe.answered()

    def hear(actor: int) -> None:
        (reference,) = [reference for reference, index in troupe.playing.items() if index == actor]
        troupe.hear(reference)

    assert troupe.scale(1) == 2 and "before block 1" in troupe.scaling()
    hear(0)
    hear(0)  # lays its streams down, and plays no more
    assert sorted(troupe.playing.values()) == [1]
    troupe.hear_of_blocks(1)
    assert troupe.snapshots.at(1) == {0: b"actor-0, 1", 1: b"actor-1, 1"} and len(troupe.news()) == 2
    troupe.hear_of_blocks(1)
    assert troupe.news() == [], "nobody is left to wait for"
    hear(1)
    assert troupe.scale(1) == 1 and troupe.snapshots.at(1) == {}, "those were of other streams"
    assert list(stage.players) == ["actor-0"] and stage.players["actor-0"].began is None
    troupe.hear_of_blocks(2)
    assert troupe.snapshots.at(2) == {0: b"actor-0, 2"}
    stage.players["actor-0"].dies = True
    hear(0)
    assert (stage.players["actor-0"].block, stage.players["actor-0"].began) == (2, b"actor-0, 2")
