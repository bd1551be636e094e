"""The actors' snapshots that a run may have to go on from: of their next blocks, by actor and block."""

from collections.abc import Callable, Mapping

from actors.actor import Report


class Snapshots:
    """What each actor's blocks depend on, from the newest learner step on.

    Args:
        found: those of the checkpoint that is gone on from, by actor; empty where there is none.
        version: its learner steps; 0 without one.
        say: hears what actors say, once.
    """

    def __init__(self, found: Mapping[int, bytes], version: int, say: Callable[[str], object]) -> None:
        self._kept = {(actor, version): snapshot for actor, snapshot in found.items()}
        self._version = version
        self._used: set[tuple[int, int]] = set()
        self._said: set[str] = set()
        self._say = say

    def add(self, actor: int, report: Report) -> None:
        """Take note of the snapshot that came with a block."""
        if report.snapshot is not None:
            self._kept[actor, report.block + 1] = report.snapshot
        if report.said and report.said not in self._said:
            self._said.add(report.said)
            self._say(f"{report.actor}: {report.said}")

    def first(self, actors: int) -> list[bytes | None]:
        """With what so many actors begin, by actor; says it where a checkpoint does not have all of them."""
        kept = [self._kept.get((actor, self._version)) for actor in range(actors)]
        if self._version and None in kept:
            had = actors - kept.count(None)
            self._say(f"the checkpoint has the state of {had} of {actors} actors: the others begin new episodes")
        return kept

    def at(self, block: int) -> dict[int, bytes]:
        """Those from which actors begin a block, by actor."""
        return {actor: snapshot for (actor, start), snapshot in self._kept.items() if start == block}

    def heirs(self, actor: int, block: int) -> bytes | None:
        """What takes an actor's place begins a block with; None the second time, when it may be what kills them."""
        if (actor, block) in self._used:
            return None
        self._used.add((actor, block))
        # Of blocks that were reported, but never reached the shard.
        self._kept = {key: snapshot for key, snapshot in self._kept.items() if key[0] != actor or key[1] <= block}
        return self._kept.get((actor, block))

    def forget(self, before: int) -> None:
        """Nobody goes back to before a block any more, but for actors that have not come so far."""
        newest: dict[int, int] = {}
        for actor, block in self._kept:
            newest[actor] = max(block, newest.get(actor, 0))
        self._kept = {
            (actor, block): snapshot
            for (actor, block), snapshot in self._kept.items()
            if block >= min(before, newest[actor])
        }

    def clear(self) -> None:
        """The streams are shared anew: what was kept is of actors that are no more."""
        self._kept.clear()
        self._used.clear()

    def spoil(self, actor: int) -> None:
        """An actor's environment raised: from the same state it would do so again."""
        self._kept = {key: snapshot for key, snapshot in self._kept.items() if key[0] != actor}
