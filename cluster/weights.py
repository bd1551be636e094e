"""Weight channels: the newest weights by version, from one learner to many actors."""

import asyncio
import os
from contextlib import suppress
from typing import Any

import ray

from cluster.local_weights import Weights
from cluster.vitals import Vitals, of_this_process


def fetch(reference: Any, *, seconds: float, otherwise: str) -> Any:
    """What a Ray reference stands for.

    Args:
        reference: an object reference.
        seconds: to wait for it.
        otherwise: what to say when it did not come.

    Raises:
        TimeoutError: it did not come in time.
    """
    try:
        return ray.get(reference, timeout=seconds)
    except ray.exceptions.GetTimeoutError as error:
        raise TimeoutError(f"waited {seconds:.0f} s, {otherwise}") from error


class Stopped(RuntimeError):
    """The run is being stopped: whoever waited for weights or rows goes home."""


class ChannelServer:
    """The process that holds the newest version in Ray's object store (an async Ray actor).

    It owns the object, so a learner's death does not take the newest weights with it; older versions are freed as soon
    as their last reader lets go. Publishing never waits for readers. Readers wait here for versions to come.

    When it dies, Ray starts another and repeats the calls that were not answered: the readers', and that of the newest
    version, which is answered only when a newer one has come. So nothing is lost.
    """

    def __init__(self) -> None:
        self._version = self._life = -1
        self._reference: Any = None
        self._stopped = False
        self._changed = asyncio.Condition()

    async def publish(self, version: int, weights: Weights, life: int = 0) -> None:
        """Take over a version; returns when a newer one has come.

        Args:
            version: one that is older than the present of the same life is ignored (a late message).
            weights: of it.
            life: of the learners; what comes from an earlier one than the present is ignored (they were replaced).
        """
        if life < self._life or (life == self._life and version < self._version):
            return
        self._life, self._version = life, version
        self._reference = reference = ray.put(weights)
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._stopped or self._reference is not reference)

    async def read(self, have: int, at_least: int) -> tuple[int, list[Any]] | None:
        """The newest version by reference, once it is at least `at_least`; None if that is what the reader has."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or self._version >= max(at_least, 0))
        if self._stopped:
            raise Stopped("the run is being stopped")
        return None if self._version <= have else (self._version, [self._reference])

    async def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    async def vitals(self) -> Vitals:
        """How the process is."""
        return of_this_process()

    async def stop(self) -> None:
        """Send all waiting readers home."""
        self._stopped = True
        async with self._changed:
            self._changed.notify_all()


class RayWeights:
    """The channel as learners and actors in other processes see it.

    Args:
        server: handle of a `ChannelServer`.
        patience: seconds that a reader waits for a version before it gives up with a message.
        life: of the learners, who publish; counts how often they were replaced.
    """

    def __init__(self, server: Any, *, patience: float = 600.0, life: int = 0) -> None:
        self._server, self._patience, self._life = server, patience, life

    def publish(self, version: int, weights: Weights) -> None:
        """Send a version on its way without waiting for it to arrive."""
        self._server.publish.remote(version, weights, self._life)

    def read(self, *, have: int, at_least: int) -> tuple[int, Weights] | None:
        """The newest version, or None if the reader has it; waits for `at_least`."""
        otherwise = f"but no weights of version {at_least} came: the learners are stuck or gone"
        while True:
            found = fetch(self._server.read.remote(have, at_least), seconds=self._patience, otherwise=otherwise)
            if found is None:
                return None
            version, (reference,) = found
            with suppress(ray.exceptions.ObjectLostError):  # the channel died meanwhile: the next one will have it
                return version, fetch(reference, seconds=self._patience, otherwise=otherwise)
