"""Which draws a shard keeps: a learner that takes another's place asks for that of its step again."""

import asyncio
import pickle
from pathlib import Path

import numpy as np
import pytest

from cluster.store import ShardProcess, Superseded
from replay import Table
from replay.opening import Places
from replay.writer import Writer
from tests.replay.store import SCHEMA, rows_of

TABLES = {"fresh": Table(batch=4, window=3, stride=2, capacity=100)}


def process_in(folder: Path, behind: int) -> ShardProcess:
    """A shard with ten draws' rows."""
    (folder / "live").mkdir()
    places = Places(live=folder / "live", kept=folder / "kept")
    process = ShardProcess(TABLES, places, SCHEMA, shards=1, index=0, seed=3, behind=behind)
    commit = process._shard.commit
    writer = Writer("a", SCHEMA, streams=range(4), rows_per_segment=8, folder=places.live, commit=commit)
    streams, names = np.arange(4), ("observation", "observation.place", "episode", "step")
    for number in range(20):
        writer.append(rows_of(streams, np.full(4, number)))
    known = rows_of(streams, np.full(4, 20))
    writer.commit({name: known[name] for name in names}, version=0)
    writer.close()
    return process


def starts(process: ShardProcess, step: int, life: int = 0) -> list[int]:
    """Where the windows of a draw begin."""
    (draw,) = pickle.loads(asyncio.run(process.draw(range(step, step + 1), 0, 1, step, life=life)))
    return draw.items["fresh"].starts.tolist()


@pytest.mark.parametrize("behind", [0, 1])
def test_the_step_that_a_learner_is_at_can_be_drawn_again(behind: int, tmp_path: Path) -> None:
    """Who reads ahead has asked for the next draw when it is still at the one before."""
    process = process_in(tmp_path, behind)
    drawn = [starts(process, step) for step in range(5)]
    assert drawn == [[2 * step] * 4 for step in range(5)]
    assert starts(process, 4 - behind, life=1) == drawn[4 - behind]
    assert min(process._shard._draws.formed) == 4 - behind, "what came before is let go of"
    asyncio.run(process.close())


def test_a_learner_that_was_only_cut_off_gets_nothing_any_more(tmp_path: Path) -> None:
    process = process_in(tmp_path, 0)
    assert starts(process, 0, life=1) == starts(process, 0, life=1)
    with pytest.raises(Superseded, match="those of life 1 took their place"):
        starts(process, 1, life=0)
    asyncio.run(process.close())


def test_the_queue_is_what_is_ready_and_learners_have_not_finished_with(tmp_path: Path) -> None:
    process = process_in(tmp_path, 0)

    def queue(done: int) -> float | None:
        share, queued = asyncio.run(process.load(done))
        assert 0 <= share <= 1
        return queued

    assert queue(done=0) == 10.0
    for step in range(3):
        starts(process, step)
    assert queue(done=0) == 10.0, "what is formed is ready, too"
    assert queue(done=3) == 7.0
    asyncio.run(process.close())
