"""Which draws a reader says that it is done with: a learner that takes its place can then not have them again."""

import pickle

import pytest

from cluster.store import RayShard
from replay.messages import Draw


class Process:
    """Stands for a shard's process; `draw.remote` answers at once, and writes down what it was told."""

    def __init__(self) -> None:
        self.draw, self.told = self, []

    def remote(self, steps: range, rank: int, ranks: int, done: int, priorities: bytes) -> bytes:
        self.told.append(done)
        return pickle.dumps([Draw({}, (), (), {}) for _ in steps])


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_nobody_is_done_with_the_step_that_a_learner_is_at(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where calls run ahead, a learner's next batch is read while it is at the present one."""
    monkeypatch.setattr("cluster.store.fetch", lambda reference, **_: reference)
    process = Process()
    shard = RayShard(process, "shard-0", ahead=ahead)
    for step in range(20):
        shard.draw(step)
        assert max(process.told) <= (step - 1 if ahead else step)
    assert max(process.told) > 10, "nothing was ever let go of"
