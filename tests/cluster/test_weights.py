"""The weight channel: nothing is copied on the way, and what the learner had put outlives it."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray

from cluster.embedded import start_ray
from cluster.local_weights import Weights
from cluster.weights import SMALL, ChannelServer, RayWeights


def weights_of(value: int) -> Weights:
    return {"a": np.full(2 * SMALL, value, np.float32), "b": np.full(3, -value, np.float32)}


@pytest.fixture
def futures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Futures stand for Ray's references, and what is put is the thing itself, marked."""
    monkeypatch.setattr("cluster.weights.ray.ObjectRef", asyncio.Future)
    monkeypatch.setattr("cluster.weights.ray.put", lambda weights: ("put", weights))


def test_readers_have_a_reference_before_the_channel_has_the_weights(futures: None) -> None:
    async def told() -> None:
        channel, reference = ChannelServer(), asyncio.get_running_loop().create_future()
        reading = asyncio.ensure_future(channel.read(-1, 3))
        publishing = asyncio.ensure_future(channel.publish(3, [reference]))
        assert await reading == (3, [reference])
        lost = asyncio.ensure_future(channel.read(-1, 3, lost=True))
        await asyncio.sleep(0)
        assert not lost.done(), "the channel has nothing to give yet"
        reference.set_result({"a": 1})
        assert await lost == (3, [("put", {"a": 1})])
        assert await channel.read(-1, 3, lost=True) == (3, [("put", {"a": 1})]) == await channel.read(-1, 3)
        await channel.stop()
        await publishing

    asyncio.run(told())


def test_weights_whose_machine_cannot_be_reached_for_a_moment_are_asked_for_again(
    futures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Far(asyncio.Future[Weights]):
        """Comes at the second time of asking."""

        asked = 0

        def __await__(self) -> Any:
            self.asked += 1
            if self.asked == 1:
                raise ray.exceptions.ObjectFetchTimedOutError("00", None, "")
            return super().__await__()

    async def told() -> None:
        channel, reference = ChannelServer(), Far()
        reference.set_result(weights_of(1))
        publishing = asyncio.ensure_future(channel.publish(3, [reference]))
        version, (found,) = await asyncio.wait_for(channel.read(-1, 3, lost=True), 10) or (0, [()])
        assert version == 3 and found[0] == "put" and reference.asked == 2
        await channel.stop()
        await publishing

    asyncio.run(told())


def test_who_lost_weights_that_never_reached_the_channel_waits_for_the_next_learners(futures: None) -> None:
    async def told() -> None:
        channel, reference = ChannelServer(), asyncio.get_running_loop().create_future()
        first = asyncio.ensure_future(channel.publish(3, [reference], 0))
        await asyncio.sleep(0)
        reference.set_exception(ray.exceptions.OwnerDiedError("00", None, ""))
        lost = asyncio.ensure_future(channel.read(-1, 3, lost=True))
        await asyncio.sleep(0.01)
        assert not lost.done() and not first.done()
        again = asyncio.ensure_future(channel.publish(3, [{"a": 2}], 1))
        version, found = await lost
        assert version == 3 and found == [("put", {"a": 2})]
        await channel.stop()
        await asyncio.gather(first, again)

    asyncio.run(told())


def test_an_older_version_that_arrives_late_does_not_stand_for_the_newest(futures: None) -> None:
    async def told() -> None:
        channel, slow = ChannelServer(), asyncio.get_running_loop().create_future()
        first = asyncio.ensure_future(channel.publish(3, [slow]))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(channel.publish(4, [{"a": 4}]))
        await asyncio.sleep(0)
        slow.set_result({"a": 3})
        await first
        assert await channel.read(3, 3, lost=True) == (4, [("put", {"a": 4})])
        await channel.stop()
        await second

    asyncio.run(told())


class Watched(ChannelServer):
    """A channel that tells when it has what was published."""

    async def mapped(self) -> bool:
        return self._weights is not None


class Publisher:
    """A process that publishes, as a learner does."""

    def publish(self, weights: RayWeights, version: int, value: int) -> int:
        weights.publish(version, weights_of(value))
        return os.getpid()


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    start_ray("")
    yield
    ray.shutdown()


def holds(found: tuple[int, Weights] | None, version: int, value: int) -> bool:
    assert found is not None
    return found[0] == version and all((a == s * value).all() for a, s in zip(found[1].values(), (1, -1), strict=True))


# Ray's own sockets and subprocesses are still open when their objects are collected.
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.timeout(300)
def test_weights_outlive_who_published_them_and_the_channel(one_ray: None) -> None:
    remote: Any = ray.remote(num_cpus=0, max_restarts=2, max_task_retries=-1)
    server = remote(Watched).remote()
    weights = RayWeights(server, patience=60.0)
    publishers = [ray.remote(num_cpus=0)(Publisher).remote() for _ in range(2)]
    learner = ray.get(publishers[0].publish.remote(weights, 1, 7))
    assert holds(weights.read(have=-1, at_least=1), 1, 7) and weights.read(have=1, at_least=1) is None
    while not ray.get(server.mapped.remote()):
        time.sleep(0.01)
    os.kill(learner, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(publishers[0].publish.remote(weights, 1, 7))
    for value in range(20):  # memory that nobody held would be used again
        ray.put(np.full(2**25, value, np.uint8))
    assert holds(weights.read(have=-1, at_least=1), 1, 7)
    ray.get(publishers[1].publish.remote(RayWeights(server, life=1), 1, 8))
    while holds(weights.read(have=-1, at_least=1), 1, 7):  # the call is under way
        time.sleep(0.01)
    os.kill(ray.get(server.pid.remote()), signal.SIGKILL)
    assert holds(weights.read(have=-1, at_least=1), 1, 8)
