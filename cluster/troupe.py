"""The actors of a run as one: another takes the place of one that dies, and their number can change meanwhile."""

import time
from typing import Any

from actors.actor import Report
from actors.environments import EnvironmentFailed
from cluster.assembly import rows_per_segment, shard_of, streams_of, writer_name
from cluster.change import Change
from cluster.experiment import Experiment
from cluster.faults import Faults
from cluster.roster import Roster
from cluster.scaling import NotPossible, with_actors
from cluster.shard_handle import RayShard
from cluster.snapshots import Snapshots
from cluster.weights import RayWeights
from cluster.world import ProcessDied

PATIENCE = 10.0
"""Seconds that actors are given to tell of what was learned from."""


class Troupe:
    """The actor processes.

    An actor is given its next block as soon as the last one is reported. When it dies, its shard says how many of its
    blocks it has, refuses whatever still comes of the dead one, and another makes the next block, from the snapshot
    that came with the one before it, or with new episodes where there is none. Where the number of actors changes, all
    begin new episodes, and there are snapshots again from the next block on.

    Args:
        roster: starts them.
        faults: hears of deaths.
        ahead: see `RayShard`.

    Attributes:
        experiment: with as many actors as there are.
        playing: blocks under way, or the last word of an actor that lays its streams down, and whose it is.
        snapshots: of the actors that there are.
    """

    def __init__(self, roster: Roster, faults: Faults, *, ahead: int) -> None:
        self.experiment, self.playing = roster.experiment, dict[Any, int]()
        self._roster, self._faults, self._ahead = roster, faults, ahead
        # That of the first layout: room for live segments was reckoned with it.
        self._segment_rows = 0 if self.experiment.store else rows_per_segment(self.experiment, roster.spaces)
        self._processes: list[Any] = []
        self._blocks: dict[int, int] = {}  # by actor, the one that it is at: those before it were reported
        self._reports: list[Report] = []  # that nobody was told of
        self._change: Change | None = None

    def begin(self, channel: Any, shards: list[Any], snapshots: Snapshots, start_block: int) -> None:
        """Start the processes, who are to read from a channel and write to shards, and let them play."""
        self._channel, self._shards, self._began, self.snapshots = channel, shards, start_block, snapshots
        for index, snapshot in enumerate(snapshots.first(self.experiment.topology.actors)):
            self._processes.append(self._new(index, self.experiment, start_block, snapshot))
        self._starting = {process.start.remote(): index for index, process in enumerate(self._processes)}
        for index in range(len(self)):
            self._goes_on(index, start_block)

    def answered(self) -> None:
        """Wait until all have made their environments; another takes the place of one that dies."""
        while self._starting:
            for reference in self._roster.wait(list(self._starting)):
                index = self._starting.pop(reference)
                try:
                    self._roster.result(reference, self._processes[index])
                except ProcessDied as death:
                    self._replace(index, death)
                    self._starting[self._processes[index].start.remote()] = index

    def hear(self, reference: Any) -> None:
        """Take an actor's report and give it the next block; if it died, another has to begin that block again."""
        index = self.playing.pop(reference)
        try:
            report: Report | None = self._roster.result(reference, self._processes[index])
        except (EnvironmentFailed, ProcessDied) as error:
            self._replace(index, error)
            return
        self._faults.finished(f"actor-{index}")
        if report is not None:
            self.snapshots.add(index, report)
            self._reports.append(report)
            self._goes_on(index, report.block + 1)
            return
        assert self._change is not None, "an actor laid down its streams, and nobody asked"
        self._change.done.add(index)
        if len(self._change.done) == len(self):
            self._switch(self._change)

    def news(self) -> list[Report]:
        """The reports since the last time."""
        reports, self._reports = self._reports, []
        return reports

    def hear_of_blocks(self, version: int) -> None:
        """Wait for what actors tell of the blocks that a version was learned from: snapshots come after commits."""
        # Where nothing is read once, learners may be ahead of actors.
        reads_blocks = any(table.reads_once for table in self.experiment.tables.values())
        until = time.monotonic() + PATIENCE
        # Those that have laid their streams down are at the block with which the new layout begins.
        while reads_blocks and min(self._blocks.values()) < version and time.monotonic() < until:
            for reference in self._roster.wait(list(self.playing)):
                self.hear(reference)

    def __len__(self) -> int:
        return len(self._processes)

    def scale(self, actors: int) -> int:
        """How many actors there are; they are made so many as soon as that can be. Called between steps until then.

        Another number than before withdraws the last one, unless its time has come already.

        Raises:
            NotPossible: new actors cannot be started; all stays as it is.
        """
        change = self._change
        if change is not None and change.until is None and change.actors != actors:
            self.withdraw()
        if self._change is None and actors != len(self):
            self._change = Change(with_actors(self.experiment, actors), len(self), self._roster, self._new)
        if self._change is not None and self._change.until is None:
            self._prepare(self._change)
        return len(self)

    def _prepare(self, change: Change) -> None:
        """Once its new processes are ready, decide with which block a change comes to pass."""
        try:
            ready = change.ready()
        except NotPossible:
            self.withdraw()
            raise
        if ready:
            # Beyond what any of them may have begun under the newest version, whichever was faster.
            lag = self.experiment.topology.max_version_lag
            change.until = 1 + max(self._faults.version + lag, *self._blocks.values())

    def scaling(self) -> str:
        """What a change of the actors waits for; "": there is none."""
        return "" if self._change is None else self._change.why()

    def withdraw(self) -> None:
        """Give up a change that has not come to pass."""
        if self._change is not None:
            self._change.withdraw()
            self._change = None

    def _new(self, index: int, experiment: Experiment, start_block: int = 0, snapshot: bytes | None = None) -> Any:
        return self._roster.actor(
            index,
            experiment,
            weights=RayWeights(self._channel),
            shard=self._shard(index, experiment),
            start_block=start_block,
            snapshot=snapshot,
            segment_rows=self._segment_rows,
        )

    def _shard(self, index: int, experiment: Experiment) -> RayShard:
        shard = shard_of(experiment, index)
        return RayShard(self._shards[shard], f"shard-{shard}", ahead=self._ahead)

    def _goes_on(self, index: int, block: int) -> None:
        """Give an actor its next block, unless that belongs to another layout."""
        process = self._processes[index]
        self._blocks[index] = block
        lays_down = self._change is not None and self._change.until == block
        self.playing[process.lay_down.remote() if lays_down else process.collect.remote()] = index

    def _replace(self, index: int, error: Exception) -> None:
        """Let another go on with the first block that the shard does not have.

        Raises:
            Exception: the error, where it is not the actor that died, or it died too often.
        """
        name = f"actor-{index}"
        if getattr(error, "process", name) != name:
            raise error
        if isinstance(error, EnvironmentFailed):
            self.snapshots.spoil(index)
        self._faults.died(name, error)
        self.playing = {reference: other for reference, other in self.playing.items() if other != index}
        self._roster.dismiss(self._processes[index])
        life = self._roster.lives[name]
        block = self._fenced(index, life, writer_name(index, self._roster.places, life - 1))
        self._processes[index] = self._new(index, self.experiment, block, self.snapshots.heirs(index, block))
        self._goes_on(index, block)

    def _fenced(self, index: int, life: int, former: str | None = None) -> int:
        """Give an actor's streams to its writer of another life alone; the block that comes next."""
        shard, streams = self._shards[shard_of(self.experiment, index)], streams_of(self.experiment, index)
        writer = writer_name(index, self._roster.places, life)
        return self._began + self._roster.result(shard.fence.remote(streams, writer, former), shard)

    def _switch(self, change: Change) -> None:
        """Go on in another layout: all streams have the same blocks now, and nobody plays."""
        for process in self._processes[change.actors :]:
            self._roster.release(process)
        self._processes = [*self._processes, *change.fresh.values()][: change.actors]
        self.experiment, self._change, self._blocks = change.experiment, None, {}
        self.snapshots.clear()
        for index, process in enumerate(self._processes):
            life = self._roster.next_life(f"actor-{index}")
            block = self._fenced(index, life)
            assert block == change.until, f"actor-{index}: its streams have {block} blocks, wanted {change.until}"
            shard = self._shard(index, self.experiment)
            process.take_up.remote(self.experiment, shard=shard, start_block=block, life=life, snapshot=None)
            self._goes_on(index, block)
