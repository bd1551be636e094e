"""What selectors keep by slot: masses in a sum tree, and numbers of the slots that are held.

The sum tree finds the slot in whose share of all masses a number lies, and changes masses, in a few steps each.

A node's mass is the sum of its children's, always computed from the children as they are: adding differences instead
would let the sums drift away from the leaves. The loops are compiled where numba is installed; elsewhere numpy takes
their place, level by level, and adds in the same order, so that both find the same slots.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from replay.compiling import compiled

FAN_OUT, FAN_BITS = 4, 2  # a wider node costs more additions than it saves steps
FEWEST_LEAVES = 64
LARGEST_MASS = 1e300  # so that the sum of ten million of them is still finite

Write = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], int]
Find = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class SumTree:
    """Masses by slot, and the sums over them.

    Every slot has mass 0 until another is written. The tree grows by itself as larger slots appear.

    Args:
        compiled: use numba where it is installed; False: numpy even there. Both give the same slots.
    """

    def __init__(self, *, compiled: bool = True) -> None:
        self._compiled = compiled
        self._firsts = _first_nodes(FEWEST_LEAVES)
        self._nodes = np.zeros(self._firsts[-1])
        _kernels(compiled)  # compiles now rather than in the first draw

    @property
    def total(self) -> float:
        """Sum of all masses."""
        return float(self._nodes[-1])

    def masses(self, slots: np.ndarray) -> np.ndarray:
        """Masses (n,) of slots (n,) that have been written."""
        return self._nodes[slots]

    def update(self, slots: np.ndarray, masses: np.ndarray) -> None:
        """Write masses (n,) of slots (n,); of a slot that is repeated, the last one stays.

        Raises:
            ValueError: a slot or a mass is out of range; says which. Nothing is written then.
        """
        write, _ = _kernels(self._compiled)
        # Copies, because the compiled loops take one kind of array only, and use the slots up.
        slots, masses = np.array(slots, np.int64), np.array(masses, np.float64)
        place = write(self._nodes, self._firsts, slots, masses)
        if place >= 0 and slots[place] >= self._firsts[1]:
            self._grow(int(slots.max()) + 1)
            place = write(self._nodes, self._firsts, slots, masses)
        if place >= 0:
            wanted = f"wanted slots of at least 0 and masses from 0 to {LARGEST_MASS:g}"
            raise ValueError(f"slot {slots[place]} with mass {masses[place]}: {wanted}")

    def find(self, targets: np.ndarray) -> np.ndarray:
        """The slot (n,) in whose share of [0, total) each target (n,) lies; shares follow one another by slot.

        A slot with mass 0 is never found, however the sums and targets were rounded.

        Raises:
            ValueError: the total is 0.
        """
        if self.total == 0:
            raise ValueError("the masses sum to 0: no slot has a share; write a mass first")
        _, find = _kernels(self._compiled)
        return find(self._nodes, self._firsts, np.array(targets, np.float64))

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Slots (count,), each with a probability of its mass over the total; may repeat.

        One from each of `count` equal parts of [0, total), then shuffled: less noise than independent
        draws, and the same probabilities at every place.

        Raises:
            ValueError: the total is 0.
        """
        slots = self.find((np.arange(count) + rng.random(count)) / max(count, 1) * self.total)
        rng.shuffle(slots)
        return slots

    def _grow(self, least: int) -> None:
        before = self._nodes[: self._firsts[1]]
        leaves = len(before)
        while leaves < least:
            leaves *= 2
        self._firsts = _first_nodes(leaves)
        self._nodes = np.zeros(self._firsts[-1])
        self.update(np.arange(len(before)), before)


def _first_nodes(leaves: int) -> np.ndarray:
    """Where each level begins among the nodes, from the leaves up to the root, and the number of nodes."""
    sizes = [leaves]
    while sizes[-1] > 1:
        parents = sizes[-1] // FAN_OUT
        sizes.append(parents if parents == 1 else -(-parents // FAN_OUT) * FAN_OUT)
    return np.cumsum([0, *sizes])


@cache
def _kernels(loops: bool) -> tuple[Write, Find]:
    """How to write and to find."""
    if loops:
        try:
            write = compiled(_write_by_loops, "int64(float64[::1], int64[::1], int64[::1], float64[::1])")
            return write, compiled(_find_by_loops, "int64[::1](float64[::1], int64[::1], float64[::1])")
        except ImportError:
            pass
    return _write_by_levels, _find_by_levels


def _write_by_loops(nodes: np.ndarray, firsts: np.ndarray, slots: np.ndarray, masses: np.ndarray) -> int:
    """Write and return -1; or write nothing and return the place of what is out of range."""
    for place in range(len(slots)):
        if not (0 <= slots[place] < firsts[1] and 0 <= masses[place] <= LARGEST_MASS):
            return place
    for place in range(len(slots)):
        nodes[slots[place]] = masses[place]
    for level in range(len(firsts) - 2):
        children, parents = firsts[level], firsts[level + 1]
        everything = (parents - children) >> FAN_BITS <= len(slots)
        for place in range((parents - children) >> FAN_BITS if everything else len(slots)):
            parent = place
            if not everything:
                parent = slots[place] = slots[place] >> FAN_BITS
            total = 0.0
            for child in range(FAN_OUT):
                total += nodes[children + (parent << FAN_BITS) + child]
            nodes[parents + parent] = total
    return -1


def _find_by_loops(nodes: np.ndarray, firsts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Level by level too: the processor then waits for many nodes at a time. Uses the targets up."""
    found = np.zeros(len(targets), np.int64)
    for level in range(len(firsts) - 3, -1, -1):
        for place in range(len(targets)):
            target = targets[place]
            begin = firsts[level] + (found[place] << FAN_BITS)
            total, below, child = 0.0, 0.0, 0
            for number in range(FAN_OUT):
                total += nodes[begin + number]
                if total <= target:
                    below, child = total, number + 1
            if child == FAN_OUT:  # rounded up to the end: the last child that has a mass, down to the leaf
                below, child = -np.inf, FAN_OUT - 1
                while nodes[begin + child] == 0:
                    child -= 1
            targets[place] = target - below
            found[place] = (found[place] << FAN_BITS) + child
    return found


def _write_by_levels(nodes: np.ndarray, firsts: np.ndarray, slots: np.ndarray, masses: np.ndarray) -> int:
    fits = (slots >= 0) & (slots < firsts[1]) & (masses >= 0) & (masses <= LARGEST_MASS)
    if not fits.all():
        return int(fits.argmin())
    nodes[slots] = masses
    for level in range(len(firsts) - 2):
        children = nodes[firsts[level] : firsts[level + 1]].reshape(-1, FAN_OUT)
        if len(children) <= len(slots):
            slots = np.arange(len(children))
        else:
            slots = slots >> FAN_BITS
        nodes[firsts[level + 1] + slots] = sum(children.take(slots, axis=0).T)
    return -1


def _find_by_levels(nodes: np.ndarray, firsts: np.ndarray, targets: np.ndarray) -> np.ndarray:
    found = np.zeros(len(targets), np.int64)
    for level in range(len(firsts) - 3, -1, -1):
        children = nodes[firsts[level] : firsts[level + 1]].reshape(-1, FAN_OUT).take(found, axis=0)
        total, below, child = np.zeros(len(targets)), np.zeros(len(targets)), np.zeros(len(targets), np.int64)
        for masses in children.T:
            total = total + masses
            passed = total <= targets
            child += passed
            np.copyto(below, total, where=passed)
        beyond = np.flatnonzero(child == FAN_OUT)
        if len(beyond):
            child[beyond] = FAN_OUT - 1 - (children[beyond, ::-1] > 0).argmax(axis=1)
            below[beyond] = -np.inf
        targets = targets - below
        found = (found << FAN_BITS) + child
    return found


class SlotNumbers:
    """A number, 0 or more, for every slot that is held.

    Attributes:
        count: slots that are held.
        numbers: by slot, below 0 if it is not held.

    Raises:
        ValueError: by every method that is given a slot which is held, is not held or is repeated, and
            must not be; says which. Nothing has changed then.
    """

    def __init__(self) -> None:
        self.count = 0
        self.numbers = np.full(FEWEST_LEAVES, -1, np.int64)  # the last is always -1

    def add(self, slots: np.ndarray, numbers: np.ndarray) -> None:
        """Hold slots (n,) by these numbers (n,)."""
        self._check(slots, held=False, different=True)
        self.numbers = longer(self.numbers, int(slots.max(initial=-1)) + 2, fill=-1)
        self.numbers[slots] = numbers
        self.count += len(slots)

    def of(self, slots: np.ndarray) -> np.ndarray:
        """Numbers (n,) of slots (n,) that are held; may repeat."""
        self._check(slots, held=True, different=False)
        return self.numbers[slots]

    def drop(self, slots: np.ndarray) -> np.ndarray:
        """Hold slots (n,) no more; gives their numbers (n,)."""
        self._check(slots, held=True, different=True)
        numbers = self.numbers[slots]
        self.numbers[slots] = -1
        self.count -= len(slots)
        return numbers

    def check_count(self, count: int) -> None:
        """Refuse to choose more slots than are held."""
        if not 0 <= count <= self.count:
            raise ValueError(f"{count} slots of {self.count} that are held: wanted from 0 up to all of them")

    def _check(self, slots: np.ndarray, *, held: bool, different: bool) -> None:
        known = self.numbers.take(slots, mode="clip") >= 0  # beyond the end: the last, which is not held
        wrong = (slots < 0) | (known != held)
        if wrong.any():
            how = "not held" if held else "held already, or below 0"
            raise ValueError(f"slot {slots[wrong][0]} is {how}: got {slots}")
        if different and len(np.unique(slots)) < len(slots):
            raise ValueError(f"a slot is repeated, wanted different ones: got {slots}")


def in_range(masses: np.ndarray) -> bool:
    """Whether all are numbers from 0 to `LARGEST_MASS`."""
    return bool(masses.min(initial=0.0) >= 0 and masses.max(initial=0.0) <= LARGEST_MASS)


def longer(array: np.ndarray, least: int, *, fill: int) -> np.ndarray:
    """The array itself, or its values and then `fill` in one of at least twice the length."""
    if least <= len(array):
        return array
    result = np.full(max(least, 2 * len(array)), fill, array.dtype)
    result[: len(array)] = array
    return result
