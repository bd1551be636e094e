"""The gate of a shard: whose commits it lets in, and how many of each stream it let in so far."""

from collections import Counter
from collections.abc import Sequence

from replay.messages import Commit
from replay.segments import Segments
from replay.sources import Ledger


class Gate:
    """Whose commits a shard takes: every writer's, until its streams are another's, and each of them once.

    A writer that is new takes its streams over, unless there is a fence: then only the one whom it names does, under
    its own name or one that it made of that (`name.1`). For messages of a dead writer may still be under way, and of
    one that died before the first arrived nobody else knows that it is dead.

    Args:
        segments: of the shard; they know its writers.

    Attributes:
        counts: commits that came twice, and those of writers that had been replaced.
    """

    def __init__(self, segments: Segments) -> None:
        self.counts = {"commits_repeated": 0, "commits_stale": 0}
        self._segments = segments
        self._commits: Counter[int] = Counter()  # by stream
        self._fences: dict[int, tuple[str, int]] = {}  # by stream: who is let in, and the commits before it

    def passes(self, writer: str, streams: Sequence[int], sequence: int) -> bool:
        """Whether a writer's commit is to be taken; one that is not is counted.

        Args:
            writer: its name.
            streams: ids.
            sequence: number of the commit.
        """
        ledger = self._segments.ledgers.get(writer)
        if self._replaced(writer, streams) if ledger is None else not ledger.owns.any():
            self.counts["commits_stale"] += 1
            return False
        if ledger is not None and sequence <= ledger.sequence:
            self.counts["commits_repeated"] += 1
            return False
        return True

    def note(self, ledger: Ledger, commit: Commit) -> None:
        """Count a commit, before its ledger knows of it.

        By its number: where one was lost, the next has its rows.
        """
        self._commits.update(dict.fromkeys(ledger.streams[ledger.owns].tolist(), commit.sequence - ledger.sequence))

    def commits(self, streams: Sequence[int], writer: str) -> int:
        """How many commits of each of these streams were let in before the writer that a fence names, or so far.

        Raises:
            ValueError: their numbers differ.
        """
        numbers = {stream: self._commits[stream] for stream in streams}
        numbers |= {s: self._fences[s][1] for s in numbers if self._fences.get(s, ("", 0))[0] == writer}
        if len(set(numbers.values())) != 1:
            found = ", ".join(f"{number} of stream {stream}" for stream, number in numbers.items())
            wanted = "wanted all streams that one writer writes, and no others"
            raise ValueError(f"commits so far: {found or 'of no stream'}; {wanted}")
        return next(iter(numbers.values()))

    def fence(self, streams: Sequence[int], writer: str) -> list[int]:
        """Let nobody but this writer write these streams from now on.

        Returns:
            The streams of which that is new.
        """
        commits = self.commits(streams, writer)
        fresh = [stream for stream in streams if self._fences.get(stream, ("", 0))[0] != writer]
        self._fences |= dict.fromkeys(fresh, (writer, commits))
        return fresh

    def begin_anew(self) -> None:
        """All writers are dead, and others will begin at their first commit."""
        self._commits.clear()
        self._fences.clear()

    def _replaced(self, writer: str, streams: Sequence[int]) -> bool:
        fences = [self._fences[stream][0] for stream in streams if stream in self._fences]
        return self._segments.gone(writer) or any(
            writer != name and not writer.startswith(f"{name}.") for name in fences
        )
