"""What is refused as a snapshot, before it costs anything or deceives."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from actors.environments import Environment
from actors.snapshot import MOST_BYTES, NotKept, pickled


def test_a_state_that_is_too_large_is_refused_before_it_is_copied() -> None:
    large = np.zeros(16 * MOST_BYTES, np.uint8)
    tracemalloc.start()
    with pytest.raises(NotKept, match=f"more than {MOST_BYTES:,} bytes"):
        pickled({"environments": large})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2 * MOST_BYTES
    assert len(pickled({"environments": large[: MOST_BYTES // 2]})) > MOST_BYTES // 2


def test_a_copy_of_ezpickle_is_known_by_its_name() -> None:
    class EzPickle:
        def __getstate__(self) -> dict[str, Any]:
            return {}

    class Simulator(EzPickle):
        pass

    with pytest.raises(NotKept, match="Simulator is pickled without its state"):
        pickled({"environments": Simulator()})


def test_environments_that_cannot_be_closed_before_their_reset_are_left_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, fresh = Environment("CartPole-v1").make(2), Environment("CartPole-v1").make(2)
    observation = begun.reset([1, 2])["observation"]

    def unready(self: VectorEnv) -> None:
        raise AttributeError("there is no simulator yet")

    state = begun.state()
    monkeypatch.setattr(type(state[0]), "close", unready)
    fresh.take_up(state)
    monkeypatch.undo()
    action = np.zeros(2, np.int64)
    assert not np.array_equal(fresh.step(action).observation["observation"], observation)
    fresh.close()
