"""Shards that die and come back, for the tests of recovery."""

from pathlib import Path

import numpy as np

from replay import NotReady, Shard, StoreFull, Table
from replay.journal import Journal
from replay.recovery import Recorder, recover
from tests.replay.store import Messages


class Killed(Exception):
    """What a process does not live to see."""


class Archive:
    """Keeps names instead of rows, as fast as it is told to."""

    def __init__(self, kept: set[str]) -> None:
        self.kept, self._waiting, self._told = kept, list[Path](), list[Path]()
        self.ends: dict[str, list[int]] = {}  # that came with each segment

    def submit(self, segment: Path, ends: np.ndarray) -> None:
        assert segment.exists()
        assert segment.name not in self.kept
        self._waiting.append(segment)
        self.ends[segment.name] = ends.tolist()

    def work(self, count: int) -> None:
        done, self._waiting = self._waiting[:count], self._waiting[count:]
        assert all(segment.exists() for segment in done)  # nobody removed or changed it in the meantime
        self.kept |= {segment.name for segment in done}
        self._told += done

    def finished(self) -> list[Path]:
        told, self._told = self._told, []
        return told

    def holds(self, segment: Path) -> bool:
        return segment.name in self.kept

    def close(self) -> None:
        self.work(len(self._waiting))


def statistics(shard: Shard) -> dict[str, float]:
    """All but what depends on how often something was told, and on how fast the archive is."""
    left_out = ("commits_repeated", "commits_stale", "segments_archiving")
    return {name: value for name, value in shard.statistics().items() if name not in left_out}


class World:
    """A shard with its writers and learner, which knows the calls that `mortal` tests make; segments are empty files.

    Args:
        folder: of segments and journal.
        tables: fields by name.
        archive: whether there is one.
        max_bytes: as for `Shard`.
    """

    def __init__(self, folder: Path, tables: dict[str, dict], *, archive: bool, max_bytes: int | None) -> None:
        self.folder, self.live = folder, folder / "live"
        self.live.mkdir(parents=True)
        self.kept: set[str] = set()
        self.archive = Archive(self.kept) if archive else None
        made = {name: Table(**fields) for name, fields in tables.items()}
        self.shard = Shard(made, seed=3, max_bytes=max_bytes, archive=self.archive)
        self.told: list[tuple[int, dict]] = []  # what the shard was like right after each draw
        self._record()
        self.births = [0, 0, 0]
        self.writers = [self._writer(number) for number in range(3)]
        self.heard: list[object] = []  # all answers
        self.ids: list[tuple[str, int]] = []
        self.step = self.version = 0

    def _record(self) -> None:
        self.shard.told = lambda shard, step, formed: self.told.append((step, statistics(shard)))
        self.recorder = Recorder(self.shard, Journal(self.folder / "journal", "shard-0"))

    def _writer(self, number: int) -> Messages:
        name, streams = f"w{number}.{self.births[number]}", [2 * number, 2 * number + 1]
        watch = ("episode", "task")
        return Messages(name, streams, self._commit, folder=self.live, rows_per_segment=3, watch=watch)

    def die(self) -> None:
        """Lose all but the files, and start again."""
        self.recorder.close()
        self.archive = Archive(self.kept) if self.archive else None
        shard = recover(self.folder / "journal", "shard-0")
        assert shard is not None
        self.shard = shard
        self.shard.segments.thaw(self.live, self.archive)
        self._record()

    def die_in_next_call(self) -> None:
        """Die as soon as something more is in the journal, before it takes effect."""

        def record(told: tuple) -> None:
            append(told)
            raise Killed

        append, self.shard.record = self.shard.record, record

    def call(self, name: str, *arguments: object, again: bool = False) -> object:
        """Call the shard; `again`: ask once more if it died meanwhile."""
        try:
            return getattr(self.shard, name)(*arguments)
        except Killed:
            self.die()
            return self.call(name, *arguments) if again else None
        except (NotReady, StoreFull) as error:
            return str(error)

    def _commit(self, commit) -> None:
        answer = self.call("commit", commit, again=True)
        self.heard.append(answer if isinstance(answer, str) else None)

    def write(self, number: int, counts: tuple[int, int], newer: bool) -> None:
        self.version += newer
        if self.archive or self.shard.admits():  # they may have to wait for an archive, that is: for a while
            self.writers[number].block(*counts, version=self.version)

    def restart(self, number: int) -> None:
        self.births[number] += 1
        self.writers[number] = self._writer(number)
        self.writers[number].block(0, 0, version=self.version)

    def fence(self, number: int) -> None:
        """A writer dies and is replaced; what it sent may still come."""
        self.births[number] += 1
        former, self.writers[number] = self.writers[number], self._writer(number)
        self.heard.append(self.call("fence", former.streams, self.writers[number].name, again=True))
        for commit in former.sent[-2:]:
            self.call("commit", commit)

    def retire(self, number: int) -> None:
        self.call("retire", self.writers[number].name)

    def resend(self, number: int) -> None:
        for commit in self.writers[number].sent[-2:]:
            self.call("commit", commit)

    def draw(self) -> None:
        answer = self.call("draw", self.step, again=True)
        if isinstance(answer, str):
            self.heard.append(answer)
            return
        self.step += 1
        for name, items in answer.items.items():
            self.heard.append((name, {key: value.tolist() for key, value in vars(items).items()}))
            self.ids += [(name, number) for number in items.ids.tolist()]
        self.heard.append((answer.writers, {key: Path(path).name for key, path in answer.segments.items()}))
        assert all(Path(path).exists() for path in answer.segments.values())

    def prioritise(self, picks: list[tuple[int, float]]) -> None:
        for place, priority in picks if self.ids else ():
            name, number = self.ids[place % len(self.ids)]
            self.call("prioritise", name, np.array([number]), np.array([priority]))

    def limit(self, name: str, limits: dict) -> None:
        if name in self.shard.tables and not self.shard.tables[name].read_limit:
            self.call("limit", name, limits)

    def end(self) -> dict[str, object]:
        """What is left at last, and where."""
        self.call("draw", self.step, again=True)
        if self.archive:
            self.archive.work(10**6)
        self.shard.segments.collect()
        found = {"statistics": statistics(self.shard), "files": sorted(path.name for path in self.live.glob("*.arrow"))}
        self.shard.close()
        self.recorder.close()
        return found | {"archived": sorted(self.kept), "left": sorted(path.name for path in self.live.glob("*.arrow"))}
