"""The learner: reads batches, runs its updates, publishes weights. One per GPU or core; all of them step together."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from learners.behaviour import importance
from learners.burn_in import burnt_in
from learners.checks import Checks
from learners.frames import stack_windows
from learners.group import Group
from learners.last_versions import LastVersions
from learners.masks import check_decisions
from learners.model import Model, acting_arrays
from learners.not_finite import NotFinite, kept
from learners.objective import Batch
from learners.update import Engine, Update
from learners.upload import moved_to
from replay.histogram import histogram
from replay.stopwatch import Stopwatch
from replay.table import Table

STAGES = ("wait", "gather", "copy", "update", "reduce", "publish", "between")
"""Of a learner's wall time: waiting for rows, gathering them, bringing them to the device, updates, sums over ranks,
keeping and publishing the new version, between two steps."""
NOT_KEPT = "checks/state_not_kept"
"""Metric: 1 where there was no room to keep the state."""


@runtime_checkable
class BatchReader(Protocol):
    """Where batches come from: `replay.sampler.Sampler`.

    Attributes:
        moments: when stages of the last read ended, in order, by `perf_counter`: "wait", "gather", "copy".
    """

    moments: Mapping[str, float]

    def read(self, step: int) -> Mapping[str, Mapping[str, np.ndarray | Tensor]]:
        """The batches of a learner step by table, columns (B, lead + window, ...); waits until there are enough rows.

        The arrays stay valid until the next call. Tensors are on the learner's device already.
        """
        ...

    def prioritise(self, table: str, items: np.ndarray, priorities: np.ndarray) -> None:
        """Send windows' priorities back, (n,) each; does not wait."""
        ...

    def close(self) -> None:
        """Let go of what is mapped, and stop reading ahead."""
        ...


@runtime_checkable
class WeightPublisher(Protocol):
    """Where weights go."""

    def publish(self, version: int, weights: dict[str, np.ndarray]) -> None:
        """Hand over the weights of a version; does not wait for readers."""
        ...


LARGEST_RATIO = 10.0
"""In histograms, where larger importance ratios count as this: one outlier would squeeze all others into one bin."""


class StaleRows(RuntimeError):
    """A batch held rows of older weights than its table allows; names the table, the lag and the bound."""


class Learner:
    """One rank of the learners.

    Owns the model and the optimisers' state on its device. Waits for the reader (rows) and for the other ranks; nobody
    waits for it but the actors, for weights. If it dies, another one that restores what it kept (`keep`) makes the step
    under way again, with the same batch; without, what it learned since the last checkpoint is lost.

    Attributes:
        version: learner steps made since the run began, over all its resumptions: the version of the weights.
        steps: env steps (decisions) that it has trained on, summed over ranks; without a table that reads once, all
            decisions that it was given.
        published: when its newest weights were ready, in seconds since 1970.
    """

    def __init__(
        self,
        model: Model,
        updates: Sequence[Update],
        *,
        tables: Mapping[str, Table],
        read: BatchReader,
        publish: WeightPublisher,
        total_steps: int,
        group: Group | None = None,
        device: torch.device | str = "cpu",
        failures: Path | None = None,
        keep: LastVersions | None = None,
    ) -> None:
        self.model = model.to(device)
        self.device = torch.device(device)
        self.group = group or Group()
        self.tables, self.read, self.publish, self.total_steps = dict(tables), read, publish, total_steps
        self.group.broadcast(self.model)
        self.engines = [update.start(self.model, self.group) for update in updates]
        self.checks, self.failures = Checks(updates, self.model, self.tables), failures
        self.keep = keep
        self.version = 0
        self.steps = 0
        self.published = 0.0
        self._watch = Stopwatch(STAGES)
        self._tensors = self.model.state_dict()  # asked for once: whatever moves them moves them where they are
        self._ages: dict[str, np.ndarray] = {}
        self._newest: dict[str, Batch] = {}

    def announce(self) -> None:
        """Keep the present state, then publish its weights, so that actors may start; only rank 0 publishes.

        In this order, and before the next draw is asked for: whatever others have heard of can be restored.
        """
        if self.keep is not None:
            tensors, values = self.state()
            self.keep.write(tensors, values | {"priorities": self._priorities()})
        self.published = time()
        if self.group.rank == 0:
            self.publish.publish(self.version, acting_arrays(self._tensors))

    def step(self) -> dict[str, float]:
        """One learner step: a batch of every table, every update once, a new version.

        Returns:
            Metrics by tag, the same on every rank, but `time/*` (seconds, see `STAGES`), `facts/published` and
            `checks/state_not_kept` are this rank's.

        Raises:
            StaleRows: the batch breaks a table's `max_lag`.
            NotFinite: a loss or gradient is not a number; the weights are those before that minibatch, which is kept in
                the folder of failures.
            OutOfBounds: a metric left the range that its objective declares.
        """
        self._watch.lap("between")
        self._newest = {}  # before the next ones need memory
        batches = {name: self._batch(name, columns) for name, columns in self._read().items()}
        metrics = self._staleness(batches)
        self._watch.lap("copy")
        for engine in self.engines:
            metrics |= self._run(engine, batches)
            for table, (items, priorities) in engine.priorities.items():
                self.read.prioritise(table, items, priorities)
        metrics |= self.checks(metrics)
        self.version += 1
        self._newest = {name: batch for name, batch in batches.items() if self.tables[name].reads_once}
        # Where nobody explores, what is drawn again and again counts each time.
        once = {name for name, table in self.tables.items() if table.reads_once} or set(self.tables)
        trained = [batch["mask"].sum() for name, batch in batches.items() if name in once]
        self.steps += int(self.group.sum(torch.stack(trained).sum()))
        self._watch.lap("update")
        self._watch.move(self.group.clock.take(), out_of="update", to="reduce")  # the device has just answered
        self.announce()
        if self.keep is not None:
            metrics[NOT_KEPT] = float(self.keep.full)
        metrics |= {"train/version": float(self.version), "facts/weights_crc": float(self.checksum())}
        metrics["facts/published"] = self.published
        self._watch.lap("publish")
        return metrics | {f"time/learner_{stage}": seconds for stage, seconds in self._watch.take().items()}

    def _read(self) -> Mapping[str, Mapping[str, np.ndarray | Tensor]]:
        """The next batches; what they were waited for is told by whoever gathered them."""
        found = self.read.read(self.version)
        for stage, moment in self.read.moments.items():
            self._watch.lap(stage, moment)
        return found

    def _run(self, engine: Engine, batches: Mapping[str, Batch]) -> dict[str, float]:
        """One update; what it stumbled over is kept."""
        try:
            return engine.step(batches, progress=min(1.0, self.steps / self.total_steps))
        except NotFinite as error:
            if self.failures is None:
                raise
            raise kept(error, self.failures / f"version-{self.version}-learner-{self.group.rank}") from None

    def close(self) -> None:
        """Stop reading."""
        self.read.close()

    def _batch(self, table: str, columns: Mapping[str, np.ndarray | Tensor]) -> Batch:
        """A table's columns on the device, context cut off, frames stacked, the core's state burnt in."""
        lead, arity = self.tables[table].lead, self.tables[table].arity
        tensors = moved_to(self.device, columns)
        if arity > 1:  # an item's windows follow one another
            tensors = {name: tensor.flatten(0, 1) for name, tensor in tensors.items()}
        batch = {name: t[:, lead:] if t.ndim > 1 else t for name, t in tensors.items()}
        if self.tables[table].by_priority:  # for each row: minibatches are of rows
            batch |= {name: batch[name][:, None].expand(batch["mask"].shape) for name in ("item", "probability")}
        for name in self.model.image_columns:
            batch[name] = stack_windows(tensors[name], tensors["step"], stack=self.model.stack, lead=lead)
        for name in ("mask", "reward", "terminated", "truncated"):
            batch[name] = batch[name].float()
        if self.model.choices:
            check_decisions(batch, self.model.choices)
        return batch | burnt_in(self.model, tensors, lead=lead)

    def _staleness(self, batches: Mapping[str, Batch]) -> dict[str, float]:
        """Versions between the weights that acted and those that learn, over the decided rows of read-once tables."""
        metrics: dict[str, float] = {}
        for name, batch in batches.items():
            table = self.tables[name]
            if not table.reads_once:
                continue
            lag = (self.version - batch["policy_version"])[batch["mask"] > 0].cpu().numpy()
            if table.max_lag is not None and len(lag) and lag.max() > table.max_lag:
                raise StaleRows(f'table "{name}": a row is {int(lag.max())} versions old, the bound is {table.max_lag}')
            if len(lag):
                metrics |= _staleness_of(lag)
                self._ages[name] = lag
        return metrics

    def histograms(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Distributions over the decided rows of this rank's last batch of tables that are read once: counts and edges.

        "staleness/TABLE": versions behind. "importance/TABLE": ratios of the present policy to the one that acted, from
        a forward pass made here, so that learner steps pay nothing for it. To be called between two of them.
        """
        ages = {f"staleness/{name}": _distribution(ages) for name, ages in self._ages.items()}
        ratios = {name: importance(self.model, batch).cpu().numpy() for name, batch in self._newest.items()}
        return ages | {f"importance/{name}": _ratios(found) for name, found in ratios.items() if len(found)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that a checkpoint must hold: tensors by name, and plain values."""
        tensors = {f"model/{name}": tensor for name, tensor in self._tensors.items()}
        for number, engine in enumerate(self.engines):
            tensors |= {f"engine/{number}/{name}": tensor for name, tensor in engine.state().items()}
        return tensors | self.random(), {"version": self.version, "steps": self.steps}

    def _priorities(self) -> list[tuple[str, list[int], list[float]]]:
        """What the last step found: a reader may send it with its next question, which a dead process never asks."""
        found = [(table, *pair) for engine in self.engines for table, pair in engine.priorities.items()]
        return [(table, items.tolist(), priorities.tolist()) for table, items, priorities in found]

    def random(self) -> dict[str, Tensor]:
        """The state of this rank's random numbers, by names that differ from rank to rank."""
        states = {f"random/{self.group.rank}": torch.get_rng_state()}
        if self.device.type == "cuda":
            states[f"random_cuda/{self.group.rank}"] = torch.cuda.get_rng_state(self.device)
        return states

    def checksum(self) -> int:
        """A number that tells whether two models are the same, bit for bit."""
        total = 0
        for tensor in self._tensors.values():
            total = zlib.crc32(tensor.cpu().contiguous().numpy(), total)
        return total

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what `state` returned, on this rank's device, with its random numbers if they are there.

        From what was kept, the last step's priorities are sent again; a shard that has them hears nothing new.
        """
        model = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
        self.model.load_state_dict(model)
        for number, engine in enumerate(self.engines):
            prefix = f"engine/{number}/"
            engine.restore({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
        if (random := tensors.get(f"random/{self.group.rank}")) is not None:
            torch.set_rng_state(random.cpu())
        else:  # a rank that was not there: not the numbers of the run's beginning again
            torch.manual_seed(torch.initial_seed() + int(values["version"]))
        if self.device.type == "cuda" and (random := tensors.get(f"random_cuda/{self.group.rank}")) is not None:
            torch.cuda.set_rng_state(random.cpu(), self.device)
        self.version, self.steps = int(values["version"]), int(values["steps"])
        for table, items, priorities in values.get("priorities", ()):
            self.read.prioritise(table, np.array(items, np.int64), np.array(priorities, np.float64))


def _staleness_of(lag: np.ndarray) -> dict[str, float]:
    """Mean, largest and percentiles (nearest rank) of versions behind, (n,) whole numbers."""
    low = lag.min()
    up_to = np.bincount(lag - low).cumsum()  # a few numbers: to sort the rows takes twenty times as long
    half, most = low + np.searchsorted(up_to, [0.5 * len(lag), 0.99 * len(lag)])
    names = {"mean": lag.mean(), "max": lag.max(), "p50": half, "p99": most}
    return {f"staleness/{name}": float(value) for name, value in names.items()}


def _distribution(ages: np.ndarray, most: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Counts of whole numbers and the edges between them; of more than `most`, several share a count."""
    low, high = ages.min(), ages.max()
    return np.histogram(ages, bins=min(most, int(high - low) + 1), range=(low - 0.5, high + 0.5))


def _ratios(ratios: np.ndarray, bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Counts of importance ratios and the edges between them."""
    return histogram(ratios.clip(max=LARGEST_RATIO), bins)
