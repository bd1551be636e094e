"""Weight channels: the newest weights by version, from one learner to many actors."""

import asyncio
import os
import time
from typing import Any

import ray

from cluster.local_weights import Weights
from cluster.vitals import Vitals, of_this_process

KNOCK = 10.0
"""Seconds without an answer after which a process is asked something else, too. After a network was down for a while,
one side may have closed a connection without the other's hearing of it: who only waits for an answer would learn that
from Ray after seven minutes, who sends something does at once. Then Ray repeats the call, or says that it failed."""


def fetch(reference: Any, *, seconds: float, otherwise: str, of: Any = None) -> Any:
    """What a Ray reference stands for.

    Args:
        reference: an object reference.
        seconds: to wait for it.
        otherwise: what to say when it did not come.
        of: the process whose answer it is; None: an object that is there.

    Raises:
        TimeoutError: it did not come in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            # What is only on its way must not be asked for anew: Ray would begin with it again.
            return ray.get(reference, timeout=max(0, left if of is None else min(KNOCK, left)))
        except ray.exceptions.GetTimeoutError as error:
            if of is None or left <= KNOCK:
                raise TimeoutError(f"waited {seconds:.0f} s, {otherwise}") from error
        of.pid.remote()


class Stopped(RuntimeError):
    """The run is being stopped: whoever waited for weights or rows goes home."""


SMALL = 64 * 2**10
"""Bytes of weights that travel in the messages themselves; Ray has room for 100 KiB there."""


class ChannelServer:
    """The process through which readers hear of the newest version (an async Ray actor); they wait here for it to come.

    The weights lie once in Ray's object store, where the learner put them, or came with the message if they are small;
    nothing is copied here. Publishing never waits for readers, and older versions are freed as soon as their last
    reader lets go. The learner owns the object, so it goes when the learner dies; but its memory stays as long as it is
    mapped in this process, which gives an object of its own to readers that come back without the weights.

    When this process dies, Ray starts another and repeats the calls that were not answered: the readers', and that of
    the newest version, which is answered only when a newer one has come. So nothing is lost.
    """

    def __init__(self) -> None:
        self._version = self._life = -1
        self._published: list[Any] = []
        self._given: list[Any] = []  # to readers: what was published, or an object of our own
        self._weights: Weights | None = None
        self._stopped = False
        self._changed = asyncio.Condition()

    async def publish(self, version: int, published: list[Any], life: int = 0) -> None:
        """Let readers have a version; returns when a newer one has come.

        Args:
            version: one that is older than the present of the same life is ignored (a late message).
            published: its weights or a reference to them; in a list, in which Ray leaves a reference as it is.
            life: of the learners; what comes from an earlier one than the present is ignored (they were replaced).
        """
        if life < self._life or (life == self._life and version < self._version):
            return
        self._life, self._version, self._weights = life, version, None
        self._published = self._given = published
        await self._tell()
        weights = await self._found(published)
        if weights is not None and self._published is published:
            self._weights = weights
            await self._tell()
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or self._published is not published)

    async def _found(self, published: list[Any]) -> Weights | None:
        """The weights themselves; None where the learner died at once: those after it publish anew."""
        (found,) = published
        while self._published is published:
            try:
                return await found if isinstance(found, ray.ObjectRef) else found
            except ray.exceptions.OwnerDiedError:
                break
            except ray.exceptions.ObjectLostError:  # its machine cannot be reached just now
                await asyncio.sleep(1)
        return None

    async def read(self, have: int, at_least: int, lost: bool = False) -> tuple[int, list[Any]] | None:
        """The newest version with its weights, or a reference to them, in a list; None if that is what the reader has.

        Args:
            have: the reader's version.
            at_least: version to wait for.
            lost: whether the reference that the reader was given before led nowhere.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or self._has(at_least, mapped=lost))
        if self._stopped:
            raise Stopped("the run is being stopped")
        if self._version <= have:
            return None
        if lost and self._given is self._published:
            self._given = [ray.put(self._weights)]
        return self._version, self._given

    def _has(self, at_least: int, *, mapped: bool) -> bool:
        return self._version >= max(at_least, 0) and (self._weights is not None or not mapped)

    async def _tell(self) -> None:
        """Let all who wait look again."""
        async with self._changed:
            self._changed.notify_all()

    async def pid(self) -> int:
        """The process's id on its node."""
        return os.getpid()

    async def vitals(self) -> Vitals:
        """How the process is."""
        return of_this_process()

    async def stop(self) -> None:
        """Send all waiting readers home."""
        self._stopped = True
        await self._tell()


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
        """Send a version on its way without waiting for it to arrive: a copy, and a call that is not waited for."""
        small = sum(array.nbytes for array in weights.values()) <= SMALL
        self._server.publish.remote(version, [weights if small else ray.put(weights)], self._life)

    def read(self, *, have: int, at_least: int) -> tuple[int, Weights] | None:
        """The newest version, or None if the reader has it; waits for `at_least`."""
        otherwise = f"but no weights of version {at_least} came: the learners are stuck or gone"
        lost = False
        while True:
            asked = self._server.read.remote(have, at_least, lost)
            answer = fetch(asked, seconds=self._patience, otherwise=otherwise, of=self._server)
            if answer is None:
                return None
            version, (found,) = answer
            if not isinstance(found, ray.ObjectRef):
                return version, found
            try:
                return version, fetch(found, seconds=self._patience, otherwise=otherwise)
            except ray.exceptions.ObjectLostError:  # who put it died: the channel still has it, or its successor will
                lost = True
