"""Draws that are formed together are those that would have been formed one after another."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay import NotReady, Shard, Table
from replay.journal import Journal
from replay.recovery import Recorder, recover
from replay.table import KINDS
from tests.replay.store import Messages, examples

TABLES = st.dictionaries(
    st.sampled_from(["first", "second"]),
    st.tuples(st.sampled_from(KINDS), st.integers(0, 1), st.integers(0, 2), st.sampled_from([None, None, 2.0])),
    min_size=1,
)


def table_of(select: str, reads: int, lead: int, ratio: float | None) -> Table:
    limits = {"reads": reads, "samples_per_insert": None if reads else ratio}
    return Table(batch=4, window=2, lead=lead, select=select, capacity=40, exponent=0.6, **limits)


def answers(shard: Shard, step: int, count: int, further: int) -> list:
    """What draws in a row answer, as far as there are any."""
    found = []
    for each in range(step, step + count):
        try:
            draw = shard.draw(each, done=step, further=further and step + count - 1 - each)
        except NotReady:
            break
        numbers = {name: [a.tolist() for a in vars(items).values()] for name, items in draw.items.items()}
        found.append((numbers, draw.writers, draw.segments))
    return found


def work(shard: Shard, counts: list[int], further: int) -> SimpleNamespace:
    """Rows, draws in a row and priorities, in turn; what every draw was and how the shard was after each."""
    writers, done = (
        [Messages(name, [n], shard.commit) for n, name in enumerate("ab")],
        SimpleNamespace(draws=[], told={}),
    )
    shard.told = lambda shard, step, formed: done.told.update(
        {step: {n: i.ids.tolist() for n, i in formed.items.items()}}
    )
    for turn, count in enumerate(counts):
        writers[turn % 2].block(9, version=turn)
        drawn = answers(shard, len(done.draws), count, further)
        done.draws += drawn
        for numbers, *_ in drawn:
            for name, items in numbers.items():
                shard.prioritise(name, np.array(items[6]), np.random.default_rng(turn).random(4))
    done.statistics = shard.statistics()
    return done


@examples(60)
@given(TABLES, st.lists(st.integers(0, 5), max_size=8), st.integers(0, 12))
def test_together_or_one_after_another(kinds, counts, until) -> None:
    tables = {name: table_of(*kind) for name, kind in kinds.items()}
    with tempfile.TemporaryDirectory() as folder:
        shards = [Shard(tables, seed=3) for _ in range(2)]
        for number, shard in enumerate(shards):
            Recorder(shard, Journal(Path(folder), f"shard-{number}"))
        apart, together = (work(shard, counts, further) for further, shard in enumerate(shards))
        assert together.draws == apart.draws
        assert together.told == apart.told
        assert together.statistics == apart.statistics
        former = [recover(Path(folder), f"shard-{number}", until=until) for number in range(2)]
        assert former[0].drawn == former[1].drawn == min(until, len(apart.draws))
        ids = [[each.holdings[name].live()[2].tolist() for name in tables] for each in former]
        assert ids[0] == ids[1]
        if former[0].drawn == until > 0:
            assert former[0].statistics() == former[1].statistics()
