import importlib.util
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import sum_tree
from replay.sum_tree import LARGEST_MASS, SlotNumbers, SumTree

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
both = pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_numba)])

WRITES = st.lists(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 9)), max_size=40), min_size=1, max_size=8)
FLOATS = st.one_of(st.just(0.0), st.floats(0, LARGEST_MASS), st.floats(1e-3, 1e3), st.floats(0, 1e-300))

PROGRAM = """
import sys
if "{without}":
    sys.modules["{without}"] = None
import numpy as np
from replay.selection import selector_of
selector_of("uniform")
assert sys.modules.get("numba") is None, "imported before it was needed"
selector = selector_of("prioritised", exponent=0.6)
selector.insert(np.arange(1000), np.random.default_rng(1).random(1000))
slots, _ = selector.choose(9, np.random.default_rng(0), distinct=False)
print("numba" if sys.modules.get("numba") else "numpy", *slots)
"""


def tree_of(masses, *, compiled: bool = False) -> SumTree:
    tree = SumTree(compiled=compiled)
    tree.update(np.arange(len(masses)), np.array(masses, np.float64))
    return tree


def slow_find(masses, targets) -> np.ndarray:
    """The definition; exact as long as all sums are."""
    return np.searchsorted(np.cumsum(masses), targets, side="right")


def run(without: str = "", **environment: str) -> list[str]:
    house = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM.format(without=without)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=house, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@both
@given(writes=WRITES)
def test_masses_totals_and_shares_are_those_of_a_plain_array(compiled: bool, writes):
    tree, plain = SumTree(compiled=compiled), np.zeros(601)
    for pairs in writes:
        slots, masses = np.array(pairs, np.int64).reshape(-1, 2).T
        for slot, mass in pairs:
            plain[slot] = mass
        tree.update(slots, masses.astype(np.float64))
        assert tree.total == plain.sum()
    written = np.array(sorted({slot for pairs in writes for slot, _ in pairs}), np.int64)
    assert tree.masses(written).tolist() == plain[written].tolist()
    if tree.total:
        targets = np.arange(0, tree.total, 0.5)
        assert tree.find(targets).tolist() == slow_find(plain, targets).tolist()


@given(masses=st.lists(FLOATS, min_size=1, max_size=300), seed=st.integers(0, 99))
def test_both_ways_and_the_loops_uncompiled_find_the_same_slots_and_never_an_empty_one(masses, seed: int):
    tree = tree_of(masses)
    if tree.total == 0:
        return
    edges = np.cumsum(masses)
    targets = np.concatenate(
        [
            np.random.default_rng(seed).random(64) * tree.total,
            [0, np.nextafter(tree.total, 0), tree.total],
            np.minimum(np.concatenate([edges, np.nextafter(edges, 0)]), tree.total),
        ]
    )
    found = tree.find(targets)
    assert (tree.masses(found) > 0).all()
    nodes = tree._nodes.copy()
    assert sum_tree._find_by_loops(nodes, tree._firsts, targets.copy()).tolist() == found.tolist()
    assert sum_tree._write_by_loops(nodes, tree._firsts, np.arange(len(masses)), np.array(masses)) == -1
    assert nodes.tolist() == tree._nodes.tolist()
    if HAS_NUMBA:
        compiled = tree_of(masses, compiled=True)
        assert compiled._nodes.tolist() == tree._nodes.tolist()
        assert compiled.find(targets).tolist() == found.tolist()


@both
def test_a_target_that_was_rounded_up_to_the_end_finds_the_last_slot_with_a_mass(compiled: bool):
    tree = tree_of([0, 3, 0, 0, 0.1, 0, 0, 0], compiled=compiled)
    assert tree.find(np.array([tree.total, np.inf])).tolist() == [4, 4]
    tiny = tree_of([0, 5e-324, 0], compiled=compiled)
    assert set(tiny.sample(100, np.random.default_rng(0)).tolist()) == {1}


@both
def test_sums_do_not_drift(compiled: bool, rng: np.random.Generator):
    tree, plain = SumTree(compiled=compiled), np.zeros(500)
    for _ in range(2000):
        slots, masses = rng.integers(0, 500, 20), 10.0 ** rng.integers(-12, 12, 20)
        plain[slots] = masses
        tree.update(slots, masses)
    assert tree._nodes.tolist() == tree_of(plain)._nodes.tolist()
    tree.update(np.arange(500), np.zeros(500))
    assert tree.total == 0


@both
def test_growing_keeps_what_was_written(compiled: bool):
    tree = tree_of([1, 2, 3], compiled=compiled)
    tree.update(np.array([100_000, 2]), np.array([5.0, 4.0]))
    assert tree.total == 12
    assert tree.find(np.arange(12)).tolist() == [0, 1, 1, 2, 2, 2, 2] + [100_000] * 5


@both
def test_one_slot_comes_from_each_equal_part_in_any_order(compiled: bool, rng: np.random.Generator):
    tree = tree_of(np.ones(256), compiled=compiled)
    samples = np.stack([tree.sample(256, rng) for _ in range(20)])
    assert (np.sort(samples, axis=1) == np.arange(256)).all()
    assert len(set(samples[:, 0].tolist())) > 15
    assert len(tree.sample(0, rng)) == 0


@both
def test_what_is_out_of_range_is_refused_and_nothing_is_written(compiled: bool):
    tree = tree_of([1, 2, 3], compiled=compiled)
    for slot, mass in [(-1, 1.0), (1, -0.5), (1, np.nan), (1, np.inf), (1, 1e301), (1000, np.nan)]:
        with pytest.raises(ValueError, match=re.escape(f"slot {slot} with mass {mass}: wanted")):
            tree.update(np.array([0, slot]), np.array([7.0, mass]))
        assert tree.total == 6
    tree.update(np.arange(3), np.zeros(3))
    for choose in (lambda: tree.find(np.zeros(1)), lambda: tree.sample(1, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="sum to 0"):
            choose()


@both
def test_arguments_are_left_alone_and_may_be_read_only(compiled: bool):
    tree = tree_of(np.ones(5000), compiled=compiled)
    arguments = [np.arange(7)[::2], np.ones(7)[::2], np.arange(4.0)]
    for argument in arguments:
        argument.setflags(write=False)
    tree.update(*arguments[:2])
    tree.find(arguments[2])
    assert arguments[0].tolist() == [0, 2, 4, 6]


@both
def test_a_pickled_tree_goes_on_like_the_original(compiled: bool, rng: np.random.Generator):
    tree = tree_of(rng.random(1000), compiled=compiled)
    copy = pickle.loads(pickle.dumps(tree))
    for each in (tree, copy):
        each.update(np.array([3, 2000]), np.array([9.0, 1.0]))
    samples = [each.sample(64, np.random.default_rng(1)).tolist() for each in (tree, copy)]
    assert samples[0] == samples[1]


def test_numba_is_imported_when_the_first_tree_is_made_and_is_not_needed():
    with_numba, without = run(), run(without="numba")
    assert (with_numba[0], without[0]) == ("numba" if HAS_NUMBA else "numpy", "numpy")
    assert with_numba[1:] == without[1:]


@needs_numba
def test_the_loops_are_compiled_where_no_folder_keeps_the_result():
    nowhere = {"NUMBA_CACHE_DIR": "/dev/null/none", "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    assert run(**nowhere) == run()


def test_numbers_say_which_slot_is_wrong_and_stay_as_they_were():
    numbers = SlotNumbers()
    numbers.add(np.array([3, 500]), np.array([1, 0]))
    before = numbers.numbers.tolist()
    for method, slots, message in [
        (lambda slots: numbers.add(slots, slots), [7, 500], "slot 500 is held already"),
        (lambda slots: numbers.add(slots, slots), [-2], "slot -2 is held already, or below 0"),
        (lambda slots: numbers.add(slots, slots), [9, 9], "repeated"),
        (numbers.drop, [3, 4], "slot 4 is not held"),
        (numbers.drop, [3, 10_000], "slot 10000 is not held"),
        (numbers.drop, [3, 3], "repeated"),
        (numbers.of, [-1], "slot -1 is not held"),
    ]:
        with pytest.raises(ValueError, match=message):
            method(np.array(slots))
        assert (numbers.count, numbers.numbers.tolist()) == (2, before)
    assert numbers.of(np.array([500, 3, 500])).tolist() == [0, 1, 0]
    assert numbers.drop(np.array([500])).tolist() == [0]
    numbers.add(np.array([500]), np.array([5]))
    assert numbers.of(np.array([500])).tolist() == [5]
