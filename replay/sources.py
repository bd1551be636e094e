"""Sources: the rows of one stream that one writer wrote, and which segments they keep alive."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from replay.messages import Commit, SegmentInfo
from replay.sum_tree import longer


@dataclass(eq=False)
class Ledger:
    """What a shard knows of one writer; arrays hold an entry for each of its slots.

    Args:
        name: of the writer.
        place: counts the ledgers of a shard.
        rows_per_segment: rows of each stream in a segment.
        streams: ids.
        first: first row that this shard knows.
        end: one past the open row.
        births: number of each slot's source; counts the sources of a shard.
        owns: whether rows may still be added: no later writer has taken the stream over.
        segments: those that are live, by index.
        references: by segment index - how many windows touch each.
        sequence: of its last commit.
        sealed: segments below this index have been given to the archive.
        archiving: indices that the archive has not finished yet.
        folder: of its live segments; "" until it commits.
    """

    name: str
    place: int
    rows_per_segment: int
    streams: np.ndarray
    first: np.ndarray
    end: np.ndarray
    births: np.ndarray
    owns: np.ndarray
    segments: dict[int, SegmentInfo] = field(default_factory=dict)
    references: np.ndarray = field(default_factory=lambda: np.zeros(8, np.int64))
    sequence: int = -1
    sealed: int = 0
    archiving: set[int] = field(default_factory=set)
    folder: str = ""

    def reserve(self, segments: int) -> None:
        """Make room to count references to so many segments."""
        if segments > len(self.references):
            grown = np.zeros(max(segments, 2 * len(self.references)), np.int64)
            grown[: len(self.references)] = self.references
            self.references = grown


class Sources:
    """All sources of a shard: numbers to ledgers, slots, streams; and the references of windows to segments.

    A window refers to every segment that it touches, its lead included, and so does a draw that is not read yet. A
    segment without references and without rows that a window may still be made of can go.

    Attributes:
        freed: whether a segment may have lost its last reference since this was set to False.
    """

    def __init__(self) -> None:
        self.ledgers: list[Ledger | None] = []  # by place; None: forgotten
        self.count = 0
        # By source number; one array for all that a draw wants to know of it: stream, ledger, slot, and how many
        # writers the stream had before.
        self.facts = np.zeros((64, 4), np.int64)
        self.ends = np.zeros(64, np.int64)  # by source number: one past the open row
        self.rows_per_segment = np.zeros(64, np.int64)  # by place of the ledger
        self.freed = True
        self._lives: Counter[int] = Counter()

    def welcome(self, commit: Commit) -> Ledger:
        """Start the ledger of a new writer."""
        slots, births = len(commit.streams), np.arange(self.count, self.count + len(commit.streams))
        streams, first = np.array(commit.streams, np.int64), np.array(commit.begins, np.int64)
        ledger = Ledger(
            name=commit.writer,
            place=len(self.ledgers),
            rows_per_segment=commit.rows_per_segment,
            streams=streams,
            first=first,
            end=first + 1,
            births=births,
            owns=np.ones(slots, np.bool_),
            sealed=int(first.min()) // commit.rows_per_segment,
        )
        self.ledgers.append(ledger)
        self.count += slots
        while self.count > len(self.facts):
            self.facts = np.concatenate([self.facts, np.zeros_like(self.facts)])
        self.ends = longer(self.ends, self.count, fill=0)
        self.rows_per_segment = longer(self.rows_per_segment, len(self.ledgers), fill=0)
        self.rows_per_segment[ledger.place] = ledger.rows_per_segment
        self.extend(ledger, ledger.end)
        lives = [self._lives[stream] for stream in commit.streams]
        self._lives.update(commit.streams)
        self.facts[births] = np.stack([streams, np.full(slots, ledger.place), np.arange(slots), lives], axis=1)
        return ledger

    def extend(self, ledger: Ledger, ends: np.ndarray) -> None:
        """Note how far a writer's rows go by now: (slots,) one past the open row of each."""
        ledger.end = self.ends[ledger.births] = ends

    def ledger(self, place: int) -> Ledger:
        """The ledger at a place; it must not be forgotten."""
        ledger = self.ledgers[place]
        assert ledger is not None, f"ledger {place} was forgotten while windows refer to it"
        return ledger

    def forget(self, ledger: Ledger) -> None:
        """Drop the ledger of a writer of whom nothing is left."""
        self.ledgers[ledger.place] = None

    def refer(self, sources: np.ndarray, low: np.ndarray, high: np.ndarray, change: int) -> None:
        """Add (change 1) or drop (-1) references of windows that read rows low to high, both included, (n,) each."""
        places = self.facts[sources, 1]
        # Most calls concern one writer.
        distinct = places[:1] if len(places) and (places == places[0]).all() else np.unique(places)
        for place in distinct.tolist():
            mine = slice(None) if len(distinct) == 1 else places == place
            ledger = self.ledger(place)
            first, last = low[mine] // ledger.rows_per_segment, high[mine] // ledger.rows_per_segment
            ledger.reserve(int(last.max()) + 1)
            for further in range(int((last - first).max()) + 1):
                touched = (first + further)[first + further <= last]
                ledger.references += change * np.bincount(touched, minlength=len(ledger.references))
        self.freed |= change < 0

    def pin(self, segments: Iterable[tuple[int, int]], change: int) -> None:
        """Add (change 1) or drop (-1) a reference to each of some segments: place of the ledger, index."""
        for place, index in segments:
            references = self.ledger(place).references
            references[index] += change
            self.freed |= not references[index]
