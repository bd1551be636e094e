"""Copying of runs: whichever way rows are copied, they are the same ones."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import gather
from replay.gather import Columns, Plan
from tests.replay.store import examples

SHAPES = {"frame": ("uint8", (20, 30)), "flag": ("uint8", ()), "number": ("int64", ()), "vector": ("float32", (3,))}


def columns(rows: int, rng: np.random.Generator) -> Columns:
    return Columns({n: rng.integers(0, 255, (rows, *shape)).astype(kind) for n, (kind, shape) in SHAPES.items()})


@examples(60)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 4), st.booleans(), st.booleans())
def test_every_way_of_copying_gives_the_rows(
    seed: int, count: int, segments: int, compiled: bool, helped: bool
) -> None:
    rng = np.random.default_rng(seed)
    sources = [columns(50, rng) for _ in range(segments)]
    lengths = rng.integers(1, 9, count)
    places = np.cumsum(lengths) - lengths
    runs = np.stack([rng.integers(0, segments, count), rng.integers(0, 42, count), lengths, places])
    target, wanted = columns(int(lengths.sum()), rng), columns(int(lengths.sum()), rng)
    for segment, first, length, place in runs.T.tolist():
        for name in SHAPES:
            wanted[name][place : place + length] = sources[segment][name][first : first + length]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as helper:
        patch.setattr(gather, "SHARED_BYTES", 0)
        copier = gather._copier(compiled=compiled)
        patch.setattr(gather, "quickest", lambda: copier)
        Plan((), runs).copy(sources, target, helper if helped else None)
    for name in SHAPES:
        assert np.array_equal(target[name], wanted[name]), name


def test_columns_with_gaps_between_rows_are_refused() -> None:
    with pytest.raises(ValueError, match='column "flag"'):
        Columns({"flag": np.zeros(10, np.uint8)[::2]})


def test_nobody_waits_for_the_compiled_way_of_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: Future[gather.Copy] = Future()
    monkeypatch.setattr(gather, "compiling", lambda: compiled)
    assert gather.quickest() is gather._copy_by_column
    compiled.set_result(gather._copier())
    assert gather.quickest() is gather._copier()
