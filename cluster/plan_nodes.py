"""Machines of a simulated run, whose cores and network are shared, and processes that do one thing at a time.

Processes of a node share its cores in turns of a few milliseconds, as Linux lets them; messages share its network, one
after another in each direction.
"""

import math
from collections import defaultdict
from collections.abc import Generator
from typing import Any

import simpy

TURN = 3e-3
"""Seconds for which Linux leaves a core to a process while others wait for it."""

Steps = Generator[simpy.Event, Any, None]
"""What a simulated process waits for, one after the other."""


class Node:
    """A machine: cores, and a network in two directions.

    Args:
        world: of simpy.
        cores: how many; parts of one are taken by others.
        processes: that run here; as long as each has a core, none ever waits for one.
    """

    def __init__(self, world: simpy.Environment, cores: int | float, processes: int) -> None:
        self.world, self.count = world, cores
        self.cores = simpy.Resource(world, max(1, math.floor(cores + 0.5)))
        self.slower = self.cores.capacity / cores  # what others take of a core makes all a little slower
        self.turn = math.inf if processes <= self.cores.capacity else TURN
        self.into, self.out = simpy.Resource(world), simpy.Resource(world)
        self.used = defaultdict[str, float](float)

    def compute(self, seconds: float) -> Steps:
        """Have a core for so long, in turns with others."""
        self.used["cores"] += seconds
        seconds *= self.slower
        if self.turn == math.inf:
            yield self.world.timeout(seconds)
            return
        while seconds > 0:
            part = min(seconds, self.turn)
            with self.cores.request() as core:
                yield core
                yield self.world.timeout(part)
            seconds -= part

    def carry(self, link: simpy.Resource, count: int | float, bandwidth: float) -> Steps:
        """Let so many bytes through the network, in one direction, when those before them are through."""
        self.used["in" if link is self.into else "out"] += count
        if count:
            with link.request() as free:
                yield free
                yield self.world.timeout(count / bandwidth)


class Server:
    """A process that does one thing after another, in the order in which it was asked.

    Args:
        node: that it is on.
    """

    def __init__(self, node: Node) -> None:
        self.node, self.busy = node, 0.0
        self._turn = simpy.Resource(node.world)

    def serve(self, seconds: float, *, last: bool = False) -> Steps:
        """Do something that takes so long.

        Args:
            seconds: of a core.
            last: only when nobody else waits.
        """
        while True:
            with self._turn.request() as turn:
                yield turn
                if last and self._turn.queue:
                    continue  # behind those who came meanwhile
                began = self.node.world.now
                yield from self.node.compute(seconds)
                self.busy += self.node.world.now - began
                return
