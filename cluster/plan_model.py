"""A model of a run's data path, in discrete events: who waits for whom, and what each part takes.

The same parts as in `cluster.distributed`: actors ask the weight channel, play a block, commit it to their shard and
report to the driver, which gives them the next (those on other nodes once their shard has it); learners draw from all
shards once every actor's block is there, update, sum gradients, and rank 0 publishes. No actor is more blocks ahead
than its versions may lag, for which tables that are read once have room: nobody waits for room.
"""

import math
from collections import Counter, defaultdict

import numpy as np
import simpy

from cluster.plan_costs import Costs
from cluster.plan_design import Design, Forecast
from cluster.plan_nodes import Node, Server, Steps

SMALL = 64 * 2**10
"""Bytes of weights that travel in messages; larger ones go once to each node: see `cluster.weights`."""
MOST_BEATS = 32
"""Parts of a block in which an actor computes and waits in turns, at most."""
BLOCKS, LEAST_STEPS, MOST_STEPS = 8_000, 3, 60
"""Blocks of all actors that a simulation has, about: a second. Fewer and more learner steps tell nothing new."""


class Simulation:
    """A run of a design, at these costs.

    Args:
        costs: of its parts.
        design: what runs.
        seed: of the blocks' times.
    """

    def __init__(self, costs: Costs, design: Design, seed: int = 1) -> None:
        self.costs, self.design, self.rng = costs, design, np.random.default_rng(seed)
        world = self.world = simpy.Environment()
        # Who has other threads wants two cores at times.
        acting = 1 + (costs.act_aside(design.envs) > 0)
        learning = 1 + (costs.learn_aside(design.batch / design.learners) > 0)
        here = 2 + design.shards + acting * design.actors * (not design.actors_per_node)
        here += learning * design.learners * (not design.learners_per_node)
        head = self.head = Node(world, max(0.1, design.cores - costs.ray), here)
        self.shards = [Server(head) for _ in range(design.shards)]
        self.channel, self.driver = Server(head), Server(head)
        self.actor_nodes = [
            Node(world, design.cores, acting * design.actors_per_node) for _ in range(design.actor_nodes)
        ]
        each = learning * design.learners_per_node
        self.learner_nodes = [Node(world, design.cores, each) for _ in range(design.learner_nodes)]
        self.version = 0
        self.busy = defaultdict[str, float](float)
        self.lags: list[int] = []
        self._published: dict[int, simpy.Event] = {0: world.event().succeed()}
        self._there: dict[int, simpy.Event] = {}
        self._blocks = Counter[int]()
        self._fetched: dict[tuple[Node, int], simpy.Event] = {}
        self._rounds: dict[int, tuple[list[int], simpy.Event]] = {}
        for index in range(design.actors):
            world.process(self._actor(index))
        world.process(self._driver())

    def forecast(self, *, steps: int = 0, before: int = 0) -> Forecast:
        """Simulate learner steps.

        Args:
            steps: that count; 0: as many as take a few seconds.
            before: that come first and do not count; 0: enough for it to run evenly.
        """
        design = self.design
        steps = steps or int(np.clip(BLOCKS / design.actors, LEAST_STEPS, MOST_STEPS))
        before = before or 2 + design.lag
        self.world.run(until=self.published(before))
        began, first = self.world.now, self._counters()
        self.lags.clear()
        self.world.run(until=self.published(before + steps))
        seconds = self.world.now - began
        used = {name: (value - first[name]) / seconds for name, value in self._counters().items()}
        trained = design.actors * design.envs * self.costs.decisions * steps
        lags = np.array(self.lags or [0])
        traffic = {name: rate for name, rate in used.items() if " " in name}
        busy = {name: share for name, share in used.items() if " " not in name}
        busy["network"] = max(traffic["driver in"], traffic["driver out"]) / design.bandwidth
        if self.learner_nodes:
            most = max(traffic["learners in"], traffic["learners out"]) / design.bandwidth
            busy["network"] = max(busy["network"], most)
        p99 = float(np.percentile(lags, 99, method="higher"))
        return Forecast(trained / seconds, seconds / steps, float(lags.mean()), p99, busy, traffic)

    def published(self, version: int) -> simpy.Event:
        """When a version is there."""
        return self._published.setdefault(version, self.world.event())

    def _counters(self) -> dict[str, float]:
        """What has been used so far."""
        design, head = self.design, self.head
        found: dict[str, float] = {
            "actors": self.busy["actors"] / design.actors,
            "learners": self.busy["learners"] / design.learners,
            "shards": max(shard.busy for shard in self.shards),
            "channel": self.channel.busy,
            "driver": self.driver.busy,
            "cores": head.used["cores"] / head.count,
        }
        for name, nodes in (("driver", [head]), ("actors", self.actor_nodes), ("learners", self.learner_nodes)):
            for way in ("in", "out") if nodes else ():
                found[f"{name} {way}"] = sum(node.used[way] for node in nodes) / len(nodes)
        return found

    def _actor(self, index: int) -> Steps:
        """Block after block."""
        costs, design, world = self.costs, self.design, self.world
        node = self.actor_nodes[index // design.actors_per_node] if design.actors_per_node else self.head
        shard, far = self.shards[index * design.shards // design.actors], node is not self.head
        hop = costs.hop + design.latency * far
        block = 0
        while True:
            yield world.timeout(hop)
            yield self.published(max(0, block - design.lag))
            yield from self.channel.serve(costs.read)
            version = self.version
            yield world.timeout(hop)
            yield from self._fetch(node, version)
            yield from self._play(node)
            commit = self._commit(node, shard, block, version)
            if design.lag and node is self.head:  # it goes on while its commits are under way; those far away wait
                world.process(commit)
            else:
                yield from commit
                yield world.timeout(hop)
            self._beside(node, costs.act_aside(design.envs))
            yield world.timeout(hop)
            if far:
                yield from self.head.carry(self.head.into, costs.snapshot * design.envs, design.bandwidth)
            yield from self.driver.serve(costs.report + costs.look * (design.actors + design.learners))
            block += 1

    def _play(self, node: Node) -> Steps:
        """The block itself: policy, environments, writing."""
        costs, envs = self.costs, self.design.envs
        luck = self._luck()
        work, rest = luck * costs.act_work(envs), luck * costs.act_rest(envs)
        began = self.world.now
        # Those who wait in turns with computing seldom want a core at once; who has one for itself never waits for it.
        beats = MOST_BEATS if rest > work / 10 and node.turn < math.inf else 1
        for _ in range(beats):
            yield from node.compute(work / beats)
            if rest:
                yield self.world.timeout(rest / beats)
        self.busy["actors"] += self.world.now - began

    def _beside(self, node: Node, seconds: float) -> None:
        """Let a process's other threads compute for so long; nobody waits for them."""
        if seconds:
            self.world.process(node.compute(seconds))

    def _luck(self) -> float:
        """A block's time over the mean one's."""
        variance = math.log1p(self.costs.spread**2)
        return math.exp(self.rng.normal(-variance / 2, math.sqrt(variance))) if variance else 1.0

    def _commit(self, node: Node, shard: Server, block: int, version: int) -> Steps:
        """A block's way to its shard."""
        costs, design, far = self.costs, self.design, node is not self.head
        yield self.world.timeout(costs.hop + design.latency * far)
        rows = 0.0
        if far and design.row_bytes:
            node.used["out"] += design.block_bytes
            yield from self.head.carry(self.head.into, design.block_bytes, design.bandwidth)
            rows = design.block_bytes / design.row_bytes
        yield from shard.serve(costs.commit(design.envs) + costs.far_row * rows)
        self.lags.append(block - version)
        self._blocks[block] += 1
        if self._blocks[block] == self.design.actors:
            self._arrival(block).succeed()
            del self._blocks[block]

    def _arrival(self, step: int) -> simpy.Event:
        """When every actor's block for a learner step is there."""
        return self._there.setdefault(step, self.world.event())

    def _fetch(self, node: Node, version: int) -> Steps:
        """Weights from rank 0's node to an actor's: small ones each time, others once for each node."""
        source, size = self._learner_node(0), self.design.weight_bytes
        if size <= SMALL:
            source = self.head
        if node is source:
            return
        if size <= SMALL:
            yield from source.carry(source.out, size, self.design.bandwidth)
        elif (node, version) in self._fetched:
            yield self._fetched[node, version]
        else:
            fetched = self._fetched[node, version] = self.world.event()
            yield from source.carry(source.out, size, self.design.bandwidth)
            node.used["in"] += size
            fetched.succeed()

    def _driver(self) -> Steps:
        """Learner step after learner step."""
        design, world = self.design, self.world
        readers = [self._reader(rank) for rank in range(design.learners)]
        step = 0
        while True:
            ranks = [world.process(self._learn(rank, step, readers[rank])) for rank in range(design.learners)]
            yield world.all_of(ranks)
            # It takes reports first: they come first among what it looks for.
            yield from self.driver.serve(self.costs.advance, last=True)
            step += 1

    def _learner_node(self, rank: int) -> Node:
        per_node = self.design.learners_per_node
        return self.learner_nodes[rank // per_node] if per_node else self.head

    def _reader(self, rank: int) -> simpy.Store | None:
        """Where a learner finds batches that were read while it updated; None: it reads itself."""
        if self.design.lag == 0:
            return None
        store = simpy.Store(self.world, 1)

        def ahead() -> Steps:
            step = 0
            while True:
                yield from self._read(rank, step)
                yield store.put(step)
                step += 1

        self.world.process(ahead())
        return store

    def _read(self, rank: int, step: int) -> Steps:
        """A learner's share of a draw."""
        costs, design, world = self.costs, self.design, self.world
        node = self._learner_node(rank)
        far = node is not self.head
        yield self._arrival(step)
        rows = design.batch / design.learners / design.shards if far else 0.0
        for shard in self.shards:
            yield from shard.serve(costs.draw + costs.far_row * rows)
            yield world.timeout(costs.hop + design.latency * far)
            if far:
                node.used["in"] += rows * design.row_bytes
                yield from self.head.carry(self.head.out, rows * design.row_bytes, design.bandwidth)

    def _learn(self, rank: int, step: int, reader: simpy.Store | None) -> Steps:
        """A learner's step."""
        costs, design, world = self.costs, self.design, self.world
        node, rows = self._learner_node(rank), design.batch / design.learners
        yield world.timeout(costs.hop)
        if reader is None:
            yield from self._read(rank, step)
        else:
            yield reader.get()
        began = world.now
        yield from node.compute(costs.learn_work(rows) / design.learner_speed)
        if rest := costs.learn_rest(rows) / design.learner_speed:
            yield world.timeout(rest)
        self.busy["learners"] += world.now - began
        yield from self._together(step)
        if rank == 0:
            world.process(self._publish(step + 1))
        self._beside(node, costs.learn_aside(rows) / design.learner_speed)
        yield world.timeout(costs.hop)

    def _together(self, step: int) -> Steps:
        """All learners wait for the slowest, then for their sums: a ring, in each step of which a part goes on."""
        design = self.design
        if design.learners == 1:
            return
        arrived, over = self._rounds.setdefault(step, ([], self.world.event()))
        arrived.append(1)
        if len(arrived) < design.learners:
            yield over
            return
        del self._rounds[step]
        seconds = self.costs.reduce
        if design.learner_nodes > 1:
            sent = 2 * (design.learners - 1) / design.learners * design.gradient_bytes
            seconds += sent / design.bandwidth + 2 * (design.learners - 1) * design.latency
            for node in self.learner_nodes:
                node.used["in"] += sent * design.reductions
                node.used["out"] += sent * design.reductions
        yield self.world.timeout(design.reductions * seconds)
        over.succeed()

    def _publish(self, version: int) -> Steps:
        yield self.world.timeout(self.costs.hop)
        yield from self.channel.serve(self.costs.publish)
        self.version = version
        self.published(version).succeed()
