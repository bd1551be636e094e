"""Writers that are killed: `python -m tests.replay.kill_writer FOLDER TIMES`, which `test_kill.py` starts.

One process imports all that is needed, and then starts children in turn, each of which it kills at a random instant.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from replay import Shard, Table
from replay.journal import Journal
from replay.recovery import Recorder
from tests.replay.store import Hand

FRESH = Table(batch=4, window=3, stride=2, capacity=100_000)
TABLES = ({"any": Table(batch=4, select="uniform", window=2, lead=1), "fresh": FRESH}, {"fresh": FRESH})
"""By turns one store that keeps all rows, and one whose segments are used again and again."""
WRITERS = {"a": [0, 1, 2], "b": [3]}


def write(folder: Path, seed: int) -> None:
    """Append and commit for ever; say how far each stream is after every commit."""
    chance, shard = random.Random(seed), Shard(TABLES[seed % 2], seed=0)
    recorder = Recorder(shard, Journal(folder / "journal", "shard-0"))
    hands = [
        Hand(name, streams, folder / "live", shard.commit, rows_per_segment=7) for name, streams in WRITERS.items()
    ]
    told = os.open(folder / "told", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    step = 0
    while True:
        hand = chance.choice(hands)
        counts = [chance.randrange(6) for _ in hand.streams]
        hand.rows(*(counts if chance.random() < 0.5 else [counts[0]] * len(counts)))
        hand.commit(version=step)
        os.write(told, np.array([hand.streams.min(), *hand.next], np.int64).tobytes())
        while chance.random() < 0.8 and not shard.missing(step):
            shard.draw(step)
            step += 1
        if chance.random() < 0.02:
            recorder.snapshot()


def kill(folder: Path, seed: int) -> None:
    """Let a child write, and kill it."""
    folder.mkdir(parents=True)
    child = os.fork()
    if not child:
        try:
            write(folder, seed)
        finally:
            os._exit(1)
    while not (folder / "told").exists() or not (folder / "told").stat().st_size:
        time.sleep(0.001)
    time.sleep(random.Random(seed).random() * 0.15)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"


if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        kill(Path(sys.argv[1]) / str(number), number)
