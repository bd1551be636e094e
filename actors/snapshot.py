"""Snapshots: all that decides an actor's next block, as bytes, so that another goes on with the same episodes."""

import io
import pickle
from typing import Any

MOST_BYTES = 4 * 2**20
"""Of a snapshot: one is taken after every block and sent to the driver, which keeps a few of each actor."""

PARTS = {"streams", "environments", "policy", "rng", "episodes", "first", "observation"}
"""Of an actor's state; weights are not among them."""


class NotKept(Exception):
    """State that cannot be had as bytes, or that bytes do not give back; says why."""


def pickled(state: dict[str, Any]) -> bytes:
    """The bytes of a state.

    Raises:
        NotKept: something in it cannot be pickled, would come back anew, or is too large.
    """
    file = _Bounded()
    try:
        _Faithful(file, protocol=5).dump(state)
    except NotKept:
        raise
    except Exception as error:  # pickling runs code of the environments, which may raise anything
        raise NotKept(f"their state cannot be pickled ({type(error).__name__}: {error})") from error
    return file.getvalue()


def unpickled(snapshot: bytes) -> dict[str, Any]:
    """The state of a snapshot; runs code that the snapshot names.

    Raises:
        NotKept: it does not come back: a class has moved, a library has another version, it has other parts.
    """
    try:
        state = dict(pickle.loads(snapshot))
    except Exception as error:
        raise NotKept(f"the state that was kept cannot be read ({type(error).__name__}: {error})") from error
    if state.keys() != PARTS:
        raise NotKept(f"the state that was kept cannot be read (it holds {', '.join(state)})")
    return state


class _Bounded(io.BytesIO):
    """Refuses what is too large before it is there: a state may be larger than the memory that is left."""

    def write(self, data: Any) -> int:
        """As of any file."""
        if self.tell() + memoryview(data).nbytes > MOST_BYTES:
            raise NotKept(f"their state takes more than {MOST_BYTES:,} bytes")
        return super().write(data)


class _Faithful(pickle.Pickler):
    """Refuses what would come back in its first state instead of the one that it is in."""

    def reducer_override(self, value: Any) -> Any:
        """As Gymnasium's MuJoCo and Box2D environments do, whose simulator cannot be pickled: they are made again."""
        # By name, since there are copies of Gymnasium's. With a `__getstate__` of its own it may well keep its state.
        getstate = getattr(type(value), "__getstate__", None)
        if any(base.__name__ == "EzPickle" and base.__getstate__ is getstate for base in type(value).__mro__):
            raise NotKept(f"{type(value).__name__} is pickled without its state (EzPickle)")
        return NotImplemented
