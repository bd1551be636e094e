"""How long weights take from the learner to the actors, and what publishing costs the learner.

python -m benchmarks.broadcast
python -m benchmarks.broadcast --megabytes 1 --actors 4 --repeats 10 --report-in /tmp/broadcast

A round publishes a version to actors that all wait for it, once over our channel (`cluster.weights`) and once over the
floor, in turns in the same processes. Who publishes has arrays of its own; an actor is done when the arrays are in its
policy's parameters. What a policy then takes for its first action is its own affair and the same on either side.

The floor is plain Ray: `ray.put` by who publishes, one call that tells an asynchronous actor the
reference, one call of each actor that waits there, `ray.get`, and a copy into the parameters. Nobody could die in it:
the object goes with who put it.

The copies' floor is computed: one into shared memory, then one in each actor, as many at a time as there are
cores: (1 + ceil(actors / cores)) times the median of a copy of the arrays within the publisher's process, measured in
every round.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import ray
import torch
import tyro

from benchmarks.broadcast_table import Exchange, Round, markdown, summary
from benchmarks.lines import FILE, leave
from cluster.embedded import start_ray
from cluster.local_weights import Weights
from cluster.weights import ChannelServer, RayWeights
from learners.model import ActorCritic, Model
from learners.nets.encoders import Mlp
from learners.policy import ModelPolicy
from replay.schema import Column

WIDTH = 512
"""Of a layer, whose float32 weights are then a megabyte (2**20 bytes)."""
WAITING = 10_000_000
"""Nanoseconds before a publication by which every actor must have begun to wait, or the round does not count."""
WARM = 6
"""Rounds before those that count: until the object store no longer takes memory that nobody has touched yet, which is
several times slower than to use some again."""


def model_of(megabytes: int) -> Model:
    """A model whose acting weights have this size, in layers of one megabyte."""
    spec = ActorCritic(Mlp(widths=(WIDTH,) * megabytes))
    return spec.build({"observation": Column("float32", (WIDTH,))}, gym.spaces.Discrete(4))


class Hub:
    """The floor's channel: hands on a reference, to be run as an asynchronous Ray actor."""

    def __init__(self) -> None:
        self._version, self._reference, self._changed = -1, list[Any](), asyncio.Condition()

    async def publish(self, version: int, reference: list[Any]) -> None:
        """Take a reference, in a list so that Ray does not fetch what it stands for."""
        self._version, self._reference = version, reference
        async with self._changed:
            self._changed.notify_all()

    async def read(self, version: int) -> list[Any]:
        """The reference, once it is of this version."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._version >= version)
        return self._reference


class Reader:
    """An actor that only takes over weights; all times are of the machine's one clock, in nanoseconds."""

    def __init__(self, channel: RayWeights, hub: Any) -> None:
        torch.set_num_threads(1)
        self._channel, self._hub = channel, hub

    def build(self, megabytes: int) -> None:
        """Have a policy of this size."""
        self._policy = ModelPolicy(model_of(megabytes))

    def ours(self, version: int) -> tuple[int, int]:
        """Wait for a version as an actor does: when it began to wait, when it had loaded."""
        began = time.monotonic_ns()
        found = self._channel.read(have=version - 1, at_least=version)
        assert found is not None and found[0] == version
        self._policy.load(*found)
        return began, time.monotonic_ns()

    @torch.no_grad()
    def floor(self, version: int) -> tuple[int, int]:
        """The same without us."""
        began = time.monotonic_ns()
        weights = ray.get(ray.get(self._hub.read.remote(version))[0])
        own = self._policy.model.state_dict()
        for name, array in weights.items():
            np.copyto(own[name].numpy(), array)
        return began, time.monotonic_ns()

    def holds(self, version: int) -> bool:
        """Whether every parameter is what `marked` made of this version."""
        return all(bool((tensor == version).all()) for tensor in self._policy.model.state_dict().values())


class Side:
    """One of the two ways, from the publisher's side.

    Args:
        publish: hands a version over without waiting for readers.
        reads: of the actors, the method that waits for a version and takes it over.
    """

    def __init__(self, publish: Callable[[int, Weights], None], reads: Sequence[Any]) -> None:
        self._publish, self._reads, self._version = publish, reads, -1

    def round(self, weights: Weights, actors: int) -> Exchange:
        """Publish to actors that wait; repeated as long as one of them came too late to wait."""
        while True:
            self._version += 1
            loading = [read.remote(self._version) for read in self._reads[:actors]]
            time.sleep(0.02 + 0.005 * actors)
            started = time.monotonic_ns()
            self._publish(self._version, weights)
            published = time.monotonic_ns()
            times = ray.get(loading)
            if all(started - began > WAITING for began, _ in times):
                return Exchange((published - started) / 1e6, [(loaded - started) / 1e6 for _, loaded in times])


class Cluster:
    """Processes that both sides share: the channel, the floor's hub, and actors."""

    def __init__(self, actors: int) -> None:
        start_ray("")
        remote: Any = ray.remote(num_cpus=0)
        self._channel, self._hub = remote(ChannelServer).remote(), remote(Hub).remote()
        channel = RayWeights(self._channel)
        self.readers = [remote(Reader).remote(channel, self._hub) for _ in range(actors)]
        self.sides = {
            "ours": Side(channel.publish, [reader.ours for reader in self.readers]),
            "floor": Side(self._put, [reader.floor for reader in self.readers]),
        }

    def _put(self, version: int, weights: Weights) -> None:
        """The floor's publication."""
        self._newest = ray.put(weights)
        self._hub.publish.remote(version, [self._newest])

    def build(self, megabytes: int) -> Weights:
        """Give the actors a policy of this size, see that both sides bring weights there, and return such weights."""
        model = model_of(megabytes)
        ray.get([reader.build.remote(megabytes) for reader in self.readers])
        for value, side in enumerate(self.sides.values(), start=1):
            weights = {name: np.full_like(array, value) for name, array in model.acting_weights().items()}
            side.round(weights, len(self.readers))
            if not all(ray.get([reader.holds.remote(value) for reader in self.readers])):
                raise SystemExit("an actor does not hold what was published: its times would mean nothing")
        return model.acting_weights()

    def measure(self, weights: Weights, actors: int, repeats: int) -> list[Round]:
        """Rounds in which both sides take turns at being first; the first ones warm up and are left out."""
        rounds, copied = [], {name: array.copy() for name, array in weights.items()}
        for number in range(repeats + WARM):
            order = list(self.sides) if number % 2 else list(reversed(self.sides))
            exchanges = {name: self.sides[name].round(weights, actors) for name in order}
            started = time.monotonic_ns()
            for name, array in weights.items():
                np.copyto(copied[name], array)
            copy = (time.monotonic_ns() - started) / 1e6
            rounds.append(Round(ours=exchanges["ours"], floor=exchanges["floor"], copy=copy))
        return rounds[WARM:]


def main(
    *,
    megabytes: tuple[int, ...] = (1, 10, 50),
    actors: tuple[int, ...] = (1, 4, 16),
    repeats: int = 30,
    report_in: Path = Path("docs/results/broadcast"),
) -> None:
    """Measure every size with every number of actors; prints the table as it grows.

    Args:
        megabytes: sizes of the weights, in 2**20 bytes.
        actors: how many read them.
        repeats: rounds that count.
        report_in: folder of the report, a JSON line for each case and a table.
    """
    report_in.mkdir(parents=True, exist_ok=True)
    (report_in / FILE).unlink(missing_ok=True)
    cluster, lines = Cluster(max(actors)), []
    try:
        for size in megabytes:
            weights = cluster.build(size)
            for count in actors:
                case = {"megabytes": size, "actors": count, "repeats": repeats, "cores": os.cpu_count()}
                lines.append(case | summary(cluster.measure(weights, count, repeats), count, os.cpu_count() or 1))
                leave(report_in, lines[-1])
                print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    finally:
        ray.shutdown()
    (report_in / "table.md").write_text(markdown(lines))
    print(markdown(lines))


if __name__ == "__main__":
    tyro.cli(main)
