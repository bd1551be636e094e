import threading
import time

import numpy as np
import pytest
import torch

from learners.gradient import Gradient
from learners.objectives.ppo import PPO
from learners.upload import Upload, moved_to
from replay.sampler import Prefetch, Sampler
from tests.learners.reading import RandomRows, learner_of, model_of


class Uploaded(Sampler):
    """Rows that a thread has made tensors of, as on a GPU; each read fills the same arrays again."""

    def __init__(self) -> None:
        self.rows = RandomRows(images=False)
        self.arrays: list[dict[str, dict[str, np.ndarray]]] = [{}, {}]
        self.threads: set[int] = set()
        self.moments = {}

    def read(self, step: int) -> dict[str, dict[str, np.ndarray]]:
        self.threads.add(threading.get_ident())
        time.sleep(0.005)  # so that the learner is busy with another batch meanwhile
        buffer = self.arrays[step % 2]
        for table, columns in self.rows.read(step).items():
            kept = buffer.setdefault(table, {name: np.empty_like(column) for name, column in columns.items()})
            for name, column in columns.items():
                kept[name][...] = column
        return buffer

    def prioritise(self, table, items, priorities) -> None:
        pass

    def close(self) -> None:
        pass


def checksums(read) -> list[int]:
    torch.manual_seed(1)
    model, rows = model_of(images=False), RandomRows(images=False)
    learner = learner_of(model, Gradient({"fresh": PPO()}, epochs=2, minibatches=2), rows=rows)
    learner.read = read
    found = []
    for _ in range(4):
        learner.step()
        found.append(learner.checksum())
    read.close()
    return found


def test_a_batch_that_a_thread_moved_teaches_the_same() -> None:
    source = Uploaded()
    moved = Prefetch(source, then=Upload(torch.device("cpu")))
    assert checksums(moved) == checksums(RandomRows(images=False))
    assert source.threads and threading.get_ident() not in source.threads


def test_an_error_of_the_copy_is_raised_by_the_read_it_concerns() -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no room on the device")

    prefetch = Prefetch(Uploaded(), then=broken)
    with pytest.raises(RuntimeError, match="no room on the device"):
        prefetch.read(0)
    prefetch.close()


def test_what_is_on_the_device_stays_there() -> None:
    tensor = torch.ones(3)
    moved = moved_to(torch.device("cpu"), {"there": tensor, "here": np.zeros(2, np.float32)})
    assert moved["there"] is tensor and torch.equal(moved["here"], torch.zeros(2))
