import importlib.util
import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.selection import KINDS, Prioritised, Selector, selector_of

IN_ORDER = {
    "fifo": lambda birth, key: birth,
    "lifo": lambda birth, key: -birth,
    "min": lambda birth, key: (key, birth),
    "max": lambda birth, key: (-key, birth),
}
COMPILED = [False] + [True] * (importlib.util.find_spec("numba") is not None)
EXPONENT = 0.6


class Naive:
    """A selector by its definition: a birth and a key for each slot."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[int, float]] = {}
        self.births = itertools.count()

    def insert(self, slots, keys) -> None:
        for slot, key in zip(slots.tolist(), keys.tolist(), strict=True):
            self.held[slot] = (next(self.births), key)

    def remove(self, slots) -> None:
        for slot in slots.tolist():
            del self.held[slot]

    def update(self, slots, keys) -> None:
        for slot, key in zip(slots.tolist(), keys.tolist(), strict=True):
            self.held[slot] = (self.held[slot][0], key)

    def shares(self, exponent: float) -> dict[int, float]:
        masses = {slot: key**exponent if key else 0.0 for slot, (_, key) in self.held.items()}
        total = sum(masses.values())
        return {slot: mass / total if total else 1 / len(masses) for slot, mass in masses.items()}


def check(kind: str, selector: Selector, naive: Naive, count: int, *, distinct: bool, seed: int) -> None:
    """That what is chosen is what the definition allows."""
    slots, probabilities = selector.choose(count, np.random.default_rng(seed), distinct=distinct)
    assert (slots.dtype, slots.shape) == (np.int64, (count,))
    assert (probabilities.dtype, probabilities.shape) == (np.float64, (count,))
    if kind in IN_ORDER:
        order = sorted(naive.held, key=lambda slot: IN_ORDER[kind](*naive.held[slot]))
        assert slots.tolist() == order[:count]
        assert probabilities.tolist() == [1.0] * count
        return
    assert set(slots.tolist()) <= set(naive.held)
    if distinct or kind == "uniform":
        assert len(set(slots.tolist())) == count
    shares = naive.shares(EXPONENT if kind == "prioritised" else 0)
    if kind == "uniform":
        shares = dict.fromkeys(shares, 1 / max(1, len(shares)))
    possible = [slot for slot, share in shares.items() if share]
    first, rest = slots[: len(possible)], slots[len(possible) :]
    assert set(first.tolist()) <= set(possible)  # none that counts 0 before one that counts
    wanted = [shares[slot] for slot in first.tolist()] + [1 / max(1, len(shares) - len(possible))] * len(rest)
    if kind == "prioritised" and not distinct:
        wanted = [shares[slot] for slot in slots.tolist()]
        assert set(slots.tolist()) <= set(possible)
    np.testing.assert_allclose(probabilities, wanted)


def too_far(counts: Counter, probabilities: dict) -> bool:
    """Whether the counts are further from their probabilities than about once in a million (chi-square)."""
    assert set(counts) <= {outcome for outcome, probability in probabilities.items() if probability}
    expected = {outcome: p * counts.total() for outcome, p in probabilities.items() if p}
    statistic = sum((counts[outcome] - number) ** 2 / number for outcome, number in expected.items())
    freedom = len(expected) - 1
    return statistic > freedom + 7 * (2 * freedom) ** 0.5 + 5


def filled(kind: str, keys, **arguments) -> Selector:
    selector = selector_of(kind, **arguments)
    selector.insert(np.arange(len(keys)), np.array(keys, np.float64))
    return selector


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_calls_in_any_order_agree_with_the_definition(kind: str, data: st.DataObject):
    selector, naive = selector_of(kind, exponent=EXPONENT), Naive()
    others = [Prioritised(EXPONENT, compiled=compiled) for compiled in COMPILED] if kind == "prioritised" else []
    keys_of = st.sampled_from([0.0, 0.0, 1.0, 2.0, 2.0, 7.5])

    def pick(pool, **bounds) -> np.ndarray:
        slots = data.draw(st.lists(st.sampled_from(sorted(pool)), max_size=12, **bounds)) if pool else []
        return np.array(slots, np.int64)

    for name in data.draw(st.lists(st.sampled_from(["insert", "insert", "remove", "update", "copy", "choose"]))):
        if name == "copy":
            selector = pickle.loads(pickle.dumps(selector))
        elif name == "choose":
            count, distinct = data.draw(st.integers(0, len(naive.held))), data.draw(st.booleans())
            check(kind, selector, naive, count, distinct=distinct, seed=count)
            for other in others:
                got, wanted = (s.choose(count, np.random.default_rng(3), distinct=distinct) for s in (other, selector))
                assert [part.tolist() for part in got] == [part.tolist() for part in wanted]
        else:
            free = set(range(90)) - set(naive.held)
            slots = pick(free if name == "insert" else naive.held, unique=name != "update")
            keys = np.array([data.draw(keys_of) for _ in slots], np.float64)
            for each in [selector, naive, *others]:
                getattr(each, name)(*[slots, keys][: 1 if name == "remove" else 2])
    check(kind, selector, naive, len(naive.held), distinct=True, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_life_in_a_full_table(kind: str, rng: np.random.Generator):
    selector, naive, free = selector_of(kind, exponent=EXPONENT), Naive(), list(range(1000))
    for turn in range(400):
        slots = np.array([free.pop() for _ in range(min(len(free), int(rng.integers(1, 60))))], np.int64)
        changed = rng.choice([*naive.held, *slots.tolist()], 30)
        for each in (selector, naive):
            each.insert(slots, np.round(np.linspace(0, 9, len(slots))))
            each.update(changed, np.arange(30.0) % 4)
        check(kind, selector, naive, min(40, len(naive.held)), distinct=turn % 2 == 0, seed=turn)
        if len(free) < 100:
            remover = selector if turn % 3 else selector_of("uniform")
            if remover is not selector:
                remover.insert(np.array(list(naive.held)), np.zeros(len(naive.held)))
            gone, _ = remover.choose(80 if turn % 50 else len(naive.held), rng, distinct=True)
            for each in (selector, naive):
                each.remove(gone)
            free.extend(gone.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_of_a_pickled_selector_is_the_same(kind: str, rng: np.random.Generator):
    selector = filled(kind, rng.integers(0, 5, 300))
    selector.remove(rng.choice(300, 120, replace=False))
    copy = pickle.loads(pickle.dumps(selector))
    futures = []
    for each in (selector, copy):
        numbers, seen = np.random.default_rng(5), []
        for _ in range(20):
            seen.append(each.choose(25, numbers, distinct=True)[0].tolist())
            each.remove(np.array(seen[-1]))
            each.insert(np.array(seen[-1][::-1]), numbers.random(25))
            seen.append(each.choose(25, numbers, distinct=False)[0].tolist())
        futures.append(seen)
    assert futures[0] == futures[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_left_or_changed_takes_no_room_for_good(kind: str, rng: np.random.Generator):
    selector, sizes = filled(kind, np.ones(100)), []
    for turn in range(400):
        selector.update(np.arange(100), rng.random(100))
        selector.remove(np.arange(20, 40))
        selector.insert(np.arange(20, 40), rng.random(20))
        sizes.append(len(pickle.dumps(selector)) if turn % 10 == 9 else 0)
    assert max(sizes) < 30_000


@pytest.mark.parametrize("kind", KINDS)
def test_choosing_changes_nothing(kind: str, rng: np.random.Generator):
    selector = filled(kind, rng.integers(0, 5, 300))
    selector.remove(np.arange(0, 300, 3))
    wanted = selector.choose(50, np.random.default_rng(7), distinct=False)[0].tolist()
    for count, distinct in [(200, True), (0, False), (13, False), (200, True)]:
        selector.choose(count, rng, distinct=distinct)
        assert selector.choose(50, np.random.default_rng(7), distinct=False)[0].tolist() == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_calls_are_refused_and_change_nothing(kind: str):
    selector = filled(kind, [1, 2, 3])
    pair = np.ones(2)
    for action, message in [
        (lambda: selector.insert(np.array([7, 1]), pair), "slot 1 is held already"),
        (lambda: selector.insert(np.array([7, 7]), pair), "repeated"),
        (lambda: selector.remove(np.array([2, 5])), "slot 5 is not held"),
        (lambda: selector.remove(np.array([2, 2])), "repeated"),
        (lambda: selector.update(np.array([2, 99_999]), pair), "slot 99999 is not held"),
        (lambda: selector.choose(4, np.random.default_rng(0), distinct=False), "4 slots of 3 that are held"),
        (lambda: selector.choose(-1, np.random.default_rng(0), distinct=True), "-1 slots of 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            action()
    slots, _ = selector.choose(3, np.random.default_rng(0), distinct=True)
    assert sorted(slots.tolist()) == [0, 1, 2]
    selector.insert(np.array([7]), np.ones(1))


def test_keys_that_no_priority_can_be_are_refused():
    selector = filled("prioritised", [1, 2], exponent=2.0)
    for key in (-1.0, np.nan, np.inf, 1e200):
        for action in (selector.insert, selector.update):
            slots = np.array([5, 6] if action == selector.insert else [0, 1])
            with pytest.raises(ValueError, match=rf"slot {slots[1]} has key .*: wanted"):
                action(slots, np.array([1.0, key]))
    assert selector.choose(2, np.random.default_rng(0), distinct=True)[1].sum() == 1
    with pytest.raises(ValueError, match="slot 0 has key nan"):
        filled("min", [np.nan])
    with pytest.raises(ValueError, match="exponent -1"):
        selector_of("prioritised", exponent=-1.0)
    with pytest.raises(ValueError, match="kind 'newest': wanted one of fifo, lifo"):
        selector_of("newest")


def test_the_kinds_are_selectors():
    assert KINDS == ("fifo", "lifo", "uniform", "prioritised", "min", "max")
    assert all(isinstance(selector_of(kind), Selector) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_chosen_from_nothing(kind: str, rng: np.random.Generator):
    selector = selector_of(kind)
    for call in (selector.insert, selector.update):
        call(np.zeros(0, np.int64), np.zeros(0))
    selector.remove(np.zeros(0, np.int64))
    for distinct in (False, True):
        assert [len(part) for part in selector.choose(0, rng, distinct=distinct)] == [0, 0]


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0, 2.0])
def test_prioritised_draws_are_as_frequent_as_their_keys_say(exponent: float, count: int, rng: np.random.Generator):
    keys = np.array([0, 1, 1, 2, 5, 0, 9, 0.25, 3, 4])
    selector, naive, changed = selector_of("prioritised", exponent=exponent), Naive(), np.array([8, 1])
    for each in (selector, naive):
        each.insert(np.arange(100, 110), keys)
        each.insert(np.arange(10), keys)
        each.remove(np.arange(100, 110))
        each.remove(np.array([6, 2]))
        each.update(changed, np.array([0.0, 6.0]))
    drawn = np.stack([selector.choose(count, rng, distinct=False)[0] for _ in range(6000)])
    shares = naive.shares(exponent)
    for place in range(count):  # at every place of a draw
        assert not too_far(Counter(drawn[:, place].tolist()), shares)
    assert not too_far(Counter(drawn.ravel().tolist()), shares)


def test_different_slots_are_drawn_one_after_the_other_in_proportion(rng: np.random.Generator):
    keys = {0: 1.0, 1: 2.0, 2: 0.0, 3: 10.0, 4: 3.0}
    selector, total = filled("prioritised", list(keys.values())), sum(keys.values())
    wanted = {
        (first, second, third): keys[first] / total * keys[second] / (total - keys[first]) * keys[third]
        / (total - keys[first] - keys[second])
        for first, second, third in itertools.permutations(set(keys) - {2}, 3)
    }  # fmt: skip
    drawn = Counter(tuple(selector.choose(3, rng, distinct=True)[0].tolist()) for _ in range(6000))
    assert not too_far(drawn, wanted)


def test_uniform_choice_is_uniform_after_removals(rng: np.random.Generator):
    for selector in (filled("uniform", range(12)), filled("prioritised", np.zeros(12))):
        selector.remove(np.array([0, 11, 5, 6]))
        left = [1, 2, 3, 4, 7, 8, 9, 10]
        drawn = [selector.choose(2, rng, distinct=False)[0].tolist() for _ in range(6000)]
        assert not too_far(Counter(map(tuple, drawn)), dict.fromkeys(itertools.permutations(left, 2), 1 / 56))


def test_slots_that_count_nothing_come_last_and_alike(rng: np.random.Generator):
    selector = filled("prioritised", [0, 5, 0, 0, 1e-300, 0])
    drawn = [selector.choose(3, rng, distinct=True) for _ in range(3000)]
    assert {tuple(slots[:2].tolist()) for slots, _ in drawn} == {(1, 4)}
    assert {probabilities[2] for _, probabilities in drawn} == {1 / 4}
    assert not too_far(Counter(int(slots[2]) for slots, _ in drawn), dict.fromkeys((0, 2, 3, 5), 1 / 4))


def test_equal_keys_leave_in_the_order_of_insertion_whatever_they_were_before():
    selector = filled("min", [3, 1, 3, 2])
    for key in (9.0, 3.0, 1.0, 3.0):  # back and forth
        selector.update(np.array([2, 0]), np.array([key, key]))
    selector.update(np.array([1, 1]), np.array([0.0, 3.0]))
    assert selector.choose(4, np.random.default_rng(0), distinct=True)[0].tolist() == [3, 0, 1, 2]
    selector.remove(np.array([0]))
    selector.insert(np.array([0]), np.array([3.0]))
    assert selector.choose(4, np.random.default_rng(0), distinct=True)[0].tolist() == [3, 1, 2, 0]
