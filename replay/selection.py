"""Selection: which of the slots that a table holds are drawn, and which of them leave.

A selector knows slots (small numbers, used again after they were removed) and keys, but neither rows nor windows.
All are deterministic given their calls, and can be pickled: a copy goes on like the original.
"""

import heapq
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from replay.sum_tree import LARGEST_MASS, SlotNumbers, SumTree, in_range, longer


@runtime_checkable
class Selector(Protocol):
    """A way of choosing among the slots that are held; slots are int64 (n,), keys float64 (n,), their priorities.

    Every method raises ValueError, and changes nothing, if a slot is not held (for `insert`: is held already), if one
    is repeated where it must not be, or if a key is out of range.
    """

    def insert(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Hold these slots too; the first of them is the oldest."""

    def remove(self, slots: np.ndarray) -> None:
        """Hold these slots no more."""

    def update(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Change keys; slots may be repeated, and the last key stays."""

    def choose(self, count: int, rng: np.random.Generator, *, distinct: bool) -> tuple[np.ndarray, np.ndarray]:
        """Slots int64 (count,), different if `distinct`, and the probability float64 (count,) of each in one pick.

        Wants a `count` of at most what is held, and changes nothing that is held.
        """


class Ordered:
    """The oldest slots first, or the newest; keys have no meaning, and probabilities are 1."""

    def __init__(self, *, newest: bool) -> None:
        self._newest = newest
        self._log = np.zeros(64, np.int64)  # of insertions, also of slots that have left since
        self._begin = self._end = 0
        self._places = SlotNumbers()  # in the log

    def insert(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Hold these slots too; the first of them is the oldest."""
        if self._end + len(slots) > len(self._log):
            self._rewrite(room=len(slots))
        self._places.add(slots, np.arange(self._end, self._end + len(slots)))
        self._log[self._end : self._end + len(slots)] = slots
        self._end += len(slots)

    def remove(self, slots: np.ndarray) -> None:
        """Hold these slots no more."""
        self._places.drop(slots)
        if self._end - self._begin > 2 * self._places.count + 64:
            self._rewrite()

    def update(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Change nothing."""
        self._places.of(slots)

    def choose(self, count: int, rng: np.random.Generator, *, distinct: bool) -> tuple[np.ndarray, np.ndarray]:
        """The oldest or newest slots, in this order."""
        self._places.check_count(count)
        places, width = self._held(count), count
        while len(places) < count:
            width = 2 * width + 64
            places = self._held(width)
        if len(places):
            first = int(places[0])  # what lies before it is not looked at again
            self._begin, self._end = (self._begin, first + 1) if self._newest else (first, self._end)
        return self._log[places[:count]], np.ones(count)

    def _held(self, width: int) -> np.ndarray:
        """Places that are held among the first `width`, in the order of choice."""
        begin = max(self._begin, self._end - width) if self._newest else self._begin
        places = np.arange(begin, min(begin + width, self._end))
        places = places[self._places.numbers[self._log[places]] == places]
        return places[::-1] if self._newest else places

    def _rewrite(self, *, room: int = 0) -> None:
        held = self._log[np.sort(self._held(len(self._log)))]
        self._log = np.zeros(2 * (len(held) + room) + 64, np.int64)
        self._log[: len(held)] = held
        self._places.numbers[held] = np.arange(len(held))
        self._begin, self._end = 0, len(held)


class Uniform:
    """Any slots with the same probability, never one of them twice; keys have no meaning."""

    def __init__(self) -> None:
        self._slots = np.zeros(64, np.int64)  # those held, without gaps
        self.places = SlotNumbers()  # in it

    @property
    def held(self) -> np.ndarray:
        """Slots (n,) that are held, in no order that means anything."""
        return self._slots[: self.places.count]

    def insert(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Hold these slots too."""
        begin, end = self.places.count, self.places.count + len(slots)
        self.places.add(slots, np.arange(begin, end))
        self._slots = longer(self._slots, end, fill=0)
        self._slots[begin:end] = slots

    def remove(self, slots: np.ndarray) -> None:
        """Hold these slots no more; the last ones take their places."""
        places, count = self.places.drop(slots), self.places.count
        gaps = places[places < count]
        last = self._slots[count : count + len(slots)]
        last = last[self.places.numbers[last] >= 0]
        self._slots[gaps] = last
        self.places.numbers[last] = gaps

    def update(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Change nothing."""
        self.places.of(slots)

    def choose(self, count: int, rng: np.random.Generator, *, distinct: bool) -> tuple[np.ndarray, np.ndarray]:
        """Different slots at random, distinct or not; each has probability 1 / held."""
        self.places.check_count(count)
        return rng.choice(self.held, count, replace=False), np.full(count, 1 / max(1, len(self.held)))

    def without(self, slots: np.ndarray) -> np.ndarray:
        """Slots that are held, except these."""
        kept = np.ones(self.places.count, np.bool_)
        kept[self.places.of(slots)] = False
        return self.held[kept]


class Prioritised:
    """Any slots in proportion to key ** exponent, a key of 0 always counting 0; while all are 0, like `Uniform`.

    Slots may be repeated, drawn from equal parts of the total. Different ones are drawn one after the other, each in
    proportion among those that are left, and first of all those that count more than 0.

    Args:
        exponent: 0 or more; 0 makes all keys above 0 alike.
        compiled: as for `SumTree`.
    """

    def __init__(self, exponent: float = 1.0, *, compiled: bool = True) -> None:
        if not 0 <= exponent < np.inf:
            raise ValueError(f"exponent {exponent}: wanted a number from 0 up, finite")
        self._exponent = exponent
        self._tree = SumTree(compiled=compiled)
        self._uniform = Uniform()

    def insert(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Hold these slots too."""
        masses = self._masses(slots, keys)
        self._uniform.insert(slots, keys)
        self._tree.update(slots, masses)

    def remove(self, slots: np.ndarray) -> None:
        """Hold these slots no more."""
        self._uniform.remove(slots)
        self._tree.update(slots, np.zeros(len(slots)))

    def update(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Change keys; slots may be repeated, and the last key stays."""
        masses = self._masses(slots, keys)
        self._uniform.update(slots, keys)
        self._tree.update(slots, masses)

    def choose(self, count: int, rng: np.random.Generator, *, distinct: bool) -> tuple[np.ndarray, np.ndarray]:
        """Slots at random; the probability of one is its part of the total, as in a first pick."""
        total = self._tree.total
        if total == 0:
            return self._uniform.choose(count, rng, distinct=True)
        self._uniform.places.check_count(count)
        if distinct:
            return self._different(count, rng)
        slots = self._tree.sample(count, rng)
        return slots, self._tree.masses(slots) / total

    def _different(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        tree, total = self._tree, self._tree.total
        slots, masses = np.zeros(0, np.int64), np.zeros(0)
        try:
            while len(slots) < count and tree.total > 0:
                found = tree.find(rng.random(count - len(slots)) * tree.total)
                found = found[np.sort(np.unique(found, return_index=True)[1])]  # each where it came first
                slots, masses = np.append(slots, found), np.append(masses, tree.masses(found))
                tree.update(found, np.zeros(len(found)))
        finally:
            tree.update(slots, masses)
        if len(slots) == count:
            return slots, masses / total
        left = self._uniform.without(slots)
        others = rng.choice(left, count - len(slots), replace=False)
        return np.append(slots, others), np.append(masses / total, np.full(len(others), 1 / len(left)))

    def _masses(self, slots: np.ndarray, keys: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            masses = np.where(keys > 0, keys**self._exponent, 0)
        if not (in_range(keys) and in_range(masses)):
            _refuse(slots, keys, ~(keys >= 0) | (keys > LARGEST_MASS), wanted=f"a number from 0 to {LARGEST_MASS:g}")
            _refuse(slots, keys, masses > LARGEST_MASS, wanted=f"at most {LARGEST_MASS:g} to the power of the exponent")
        return masses


class Ranked:
    """The slots with the smallest keys first, or the largest; of equal ones the oldest. Probabilities are 1."""

    def __init__(self, *, largest: bool) -> None:
        self._sign = -1.0 if largest else 1.0
        self._heap: list[tuple[float, int, int]] = []  # key, birth, slot: also of those that have changed since
        self._keys = np.zeros(64)  # by slot
        self._births = SlotNumbers()
        self._inserted = 0

    def insert(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Hold these slots too; the first of them is the oldest."""
        _refuse(slots, keys, np.isnan(keys), wanted="a number")
        self._births.add(slots, np.arange(self._inserted, self._inserted + len(slots)))
        self._inserted += len(slots)
        self._keys = longer(self._keys, len(self._births.numbers), fill=0)
        self._push(slots, keys)

    def remove(self, slots: np.ndarray) -> None:
        """Hold these slots no more."""
        self._births.drop(slots)
        self._tidy()

    def update(self, slots: np.ndarray, keys: np.ndarray) -> None:
        """Change keys; slots may be repeated, and the last key stays. None grows older or younger."""
        _refuse(slots, keys, np.isnan(keys), wanted="a number")
        self._births.of(slots)
        self._push(slots, keys)

    def choose(self, count: int, rng: np.random.Generator, *, distinct: bool) -> tuple[np.ndarray, np.ndarray]:
        """The smallest or largest keys, in this order."""
        self._births.check_count(count)
        found: list[tuple[float, int, int]] = []
        while len(found) < count:
            key, birth, slot = entry = heapq.heappop(self._heap)
            # A key that changed and changed back has left two equal entries, which come up together.
            if self._births.numbers[slot] == birth and self._keys[slot] == key and found[-1:] != [entry]:
                found.append(entry)
        for entry in found:
            heapq.heappush(self._heap, entry)
        return np.array([slot for _, _, slot in found], np.int64), np.ones(count)

    def _push(self, slots: np.ndarray, keys: np.ndarray) -> None:
        self._keys[slots] = self._sign * keys
        for entry in self._entries(slots):
            heapq.heappush(self._heap, entry)
        self._tidy()

    def _entries(self, slots: np.ndarray) -> list[tuple[float, int, int]]:
        births = self._births.numbers[slots]
        return list(zip(self._keys[slots].tolist(), births.tolist(), slots.tolist(), strict=True))

    def _tidy(self) -> None:
        if len(self._heap) > 2 * self._births.count + 64:
            self._heap = self._entries(np.flatnonzero(self._births.numbers >= 0))
            heapq.heapify(self._heap)


def _refuse(slots: np.ndarray, keys: np.ndarray, wrong: np.ndarray, *, wanted: str) -> None:
    """Raise ValueError for the first of the keys that are wrong."""
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(f"slot {slots[place]} has key {keys[place]}: wanted {wanted}")


_MAKERS: dict[str, Callable[[float], Selector]] = {
    "fifo": lambda exponent: Ordered(newest=False),
    "lifo": lambda exponent: Ordered(newest=True),
    "uniform": lambda exponent: Uniform(),
    "prioritised": Prioritised,
    "min": lambda exponent: Ranked(largest=False),
    "max": lambda exponent: Ranked(largest=True),
}
KINDS = tuple(_MAKERS)


def selector_of(kind: str, *, exponent: float = 1.0) -> Selector:
    """A new selector that holds nothing.

    Args:
        kind: one of `KINDS`: the oldest slots first ("fifo"), the newest ("lifo"), any with the same
            probability ("uniform"), any in proportion to key ** exponent ("prioritised"), those with
            the smallest ("min") or largest ("max") keys.
        exponent: of "prioritised"; the others have none.

    Raises:
        ValueError: another kind, or an exponent below 0.
    """
    if kind not in _MAKERS:
        raise ValueError(f"kind {kind!r}: wanted one of {', '.join(KINDS)}")
    return _MAKERS[kind](exponent)
