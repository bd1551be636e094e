"""The whole description of a run: a method as five values, and where it runs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import gymnasium as gym
import torch

from actors.environments import Environment, environment_seeds
from actors.spaces import columns_of
from cluster.topology import LEAST, Topology
from learners.gradient import Gradient
from learners.model import ActorCritic, Model
from learners.objective import Objective
from learners.policy import ModelPolicy, recorded_columns
from learners.trust_region import check_order
from learners.update import Update
from replay.schema import Column, Schema
from replay.table import Table


class ExperimentError(ValueError):
    """An experiment whose parts do not fit together: says what was got, what was wanted and what to change."""


def at_least(name: str, value: int, least: int) -> None:
    """Raise an ExperimentError that names a value below its least."""
    if value < least:
        raise ExperimentError(f"{name} is {value}, wanted at least {least}")


@dataclass(frozen=True)
class Experiment:
    """A run, as a recipe returns it.

    Attributes:
        environment: what the actors explore.
        model: the network's description.
        tables: ways of reading the store, by name.
        updates: made in order in every learner step.
        envs: environments over all actors, each a stream of its own.
        rows: of each stream in a block, decisions and the final observations among them; one block of every actor
            feeds one learner step.
        steps: agent steps (decisions) after which the run ends. Frames are more: times the environment's frame skip.
        seed: root of every random number.
        gamma: discount of the recorded running return (reward scaling).
        topology: where it runs.
        evaluation: environment of the closing evaluation; None: the same as for training.
        evaluation_episodes: greedy episodes at the end; 0: none.
        evaluation_max_steps: agent steps after which such an episode is cut and reported so.
        store: a run, or a store that was imported, whose rows are learned from; there are no actors then, and `steps`
            counts decisions in batches. "": actors explore.
    """

    environment: Environment
    model: ActorCritic
    tables: Mapping[str, Table]
    updates: tuple[Update, ...]
    envs: int
    rows: int
    steps: int
    seed: int = 1
    gamma: float = 0.99
    topology: Topology = field(default_factory=Topology)
    evaluation: Environment | None = None
    evaluation_episodes: int = 10
    evaluation_max_steps: int = 5_000
    store: str = ""

    def objectives(self) -> list[Objective]:
        """All objectives of all updates."""
        return [objective for update in self.updates for objective in update.objectives.values()]

    def checked(self) -> "Experiment":
        """The same with its topology resolved for this machine.

        Raises:
            ExperimentError: parts that do not fit together.
        """
        self._check_numbers()
        checked = replace(self, topology=self._resolved_topology())
        checked._check_places()
        read = {table for update in self.updates for table in update.objectives}
        if unknown := sorted(read - set(self.tables)):
            raise ExperimentError(f'an update reads table "{unknown[0]}", the experiment has {sorted(self.tables)}')
        if not self.store and not any(table.reads_once for table in self.tables.values()):
            raise ExperimentError(
                f"no table of {sorted(self.tables)} is read once (select='fifo'): "
                "nothing would count the steps trained on"
            )
        for name, table in self.tables.items():
            checked.check_table(name, table)
        check_order(self.updates, self.model)
        checked = replace(checked, tables={name: checked._evenly_drawn(table) for name, table in self.tables.items()})
        for update in self.updates:
            if isinstance(update, Gradient):
                checked._check_minibatches(update)
        return checked

    def _resolved_topology(self) -> Topology:
        """Without actors, learners alone share the machine, as far as the batches divide."""
        if not self.store:
            return self.topology.resolved(self.envs)
        share = math.gcd(*(table.batch for table in self.tables.values())) // self.topology.shards
        return replace(self.topology.resolved(max(1, share)), actors=0)

    def _check_numbers(self) -> None:
        for name in ("steps", "envs", "rows"):
            at_least(name, getattr(self, name), 1)
        at_least("seed", self.seed, 0)
        if not 0 <= self.gamma <= 1:
            raise ExperimentError(f"gamma is {self.gamma}, wanted 0 to 1")
        for name, least in LEAST.items():
            at_least(f"--topology.{name.replace('_', '-')}", getattr(self.topology, name), least)

    def _check_places(self) -> None:
        """Processes must share environments, shards and GPUs evenly."""
        topology, gpus = self.topology, torch.cuda.device_count()
        if topology.local and topology.learners > 1:
            raise ExperimentError(f"{topology.learners} learners in one process: leave out --topology.local")
        if topology.local and topology.gpus_per_learner > gpus:
            raise ExperimentError(
                f"--topology.gpus-per-learner {topology.gpus_per_learner}: this machine has {gpus} GPUs"
            )
        if self.store:
            return
        if self.envs % topology.actors:
            raise ExperimentError(
                f"{self.envs} environments do not divide over {topology.actors} actors: "
                "change --envs or --topology.actors"
            )
        if topology.actors % topology.shards:
            raise ExperimentError(
                f"{topology.actors} actors do not divide over {topology.shards} shards: every shard needs "
                "equally many, change --topology.actors or --topology.shards"
            )

    def _check_minibatches(self, update: Gradient) -> None:
        """Every learner must have something for each minibatch."""
        for name, objective in update.objectives.items():
            table = self.tables[name]
            windows = table.batch // (self.topology.shards * self.topology.learners) * self.topology.shards
            whole = self.model.core is not None or objective.recurrent
            parts, of = (windows, "windows") if whole else (windows * table.owned_rows, "rows")
            if parts < update.minibatches:
                raise ExperimentError(
                    f"{update.minibatches} minibatches of the {parts} {of} that each of {self.topology.learners} "
                    f'learners draws from table "{name}": lower --minibatches or --topology.learners, or raise --envs'
                )

    def check_table(self, name: str, table: Table, *, held: int = 0) -> None:
        """Every learner step must find its batch, and at lag 0 use up what one block of all actors brings.

        Args:
            name: of the table.
            table: perhaps with other limits than the experiment's own.
            held: windows that it holds already.

        Raises:
            ExperimentError: learners and actors would wait for each other.
        """
        ways = self.topology.shards * self.topology.learners
        if table.batch % ways:
            raise ExperimentError(
                f'table "{name}" draws {table.batch} items a step, which do not divide over {self.topology.shards} '
                f"shards x {self.topology.learners} learners: change the batch, --topology.shards or .learners"
            )
        if self.store:
            self._check_given(name, table)
        elif table.reads_once:
            self._check_read_once(name, table)
        else:
            self._check_history(name, table, held)

    def _check_given(self, name: str, table: Table) -> None:
        """Nobody adds to a store that is only read."""
        if table.read_limit:
            raise ExperimentError(
                f'table "{name}" reads its windows {table.read_limit} times, but nobody adds any to '
                f"{self.store}: let reads be 0, without bound"
            )
        if table.samples_per_insert is not None:
            raise ExperimentError(f'table "{name}": samples_per_insert with {self.store}, to which nobody adds')

    def _check_read_once(self, name: str, table: Table) -> None:
        if (windows := self._windows_in(table, self.rows)) != table.batch:
            raise ExperimentError(
                f'table "{name}" draws {table.batch} windows of {table.window} rows a step, but blocks of {self.rows} '
                f"rows of {self.envs} environments hold {windows}: it would never be filled evenly, "
                "make them equal"
            )
        least = (self.topology.max_version_lag + 1) * table.batch_windows
        if table.capacity is not None and table.capacity < least:
            raise ExperimentError(
                f'table "{name}" has room for {table.capacity} windows, but actors that are ahead fill {least}: '
                "leave its capacity None"
            )

    def _evenly_drawn(self, table: Table) -> Table:
        """A table whose every draw takes one block of every actor.

        With a lag, a fast actor is blocks ahead. Drawn by age alone, its windows would make up for those of a slow one,
        which would then wait and grow older than the lag allows.
        """
        if self.store or not table.reads_once or table.select != "fifo":
            return table
        blocks = self.topology.max_version_lag + 1  # that an actor may be ahead
        capacity = table.capacity or (blocks + 1) * table.batch_windows
        return replace(table, per_stream=table.per_stream or table.batch_windows // self.envs, capacity=capacity)

    def _check_history(self, name: str, table: Table, held: int) -> None:
        windows = self._windows_in(table, self.rows)
        if table.samples_per_insert is not None and table.samples_per_insert * windows < table.batch_windows:
            raise ExperimentError(
                f'table "{name}" draws {table.batch_windows} windows a step, for which {windows} come in: '
                f"samples_per_insert {table.samples_per_insert:g} would stop the run, wanted at least "
                f"{table.batch_windows / max(1, windows):.3g}"
            )
        held = max(held, self._windows_in(table, self.rows * (self.topology.max_version_lag + 1)))
        if table.min_windows > held:
            raise ExperimentError(
                f'table "{name}" waits for {table.min_windows} windows, but holds {held} when actors wait for the '
                "learners: lower min_items, or raise rows or envs"
            )

    def _windows_in(self, table: Table, rows: int) -> int:
        """How many windows so many rows of every environment make, at most: `within` may leave some out."""
        # The open row behind them ends a window, too, but is none on its own.
        room = rows + 1 - max(2, table.window)
        return (room // table.stride_rows + 1) * self.envs if room >= 0 else 0

    def seeds(self, actor: int, incarnation: int = 0) -> list[int]:
        """The seeds of an actor's environments."""
        count = self.envs // self.topology.actors
        return environment_seeds(self.seed, actor, count, incarnation=incarnation)


@dataclass(frozen=True)
class Spaces:
    """What an environment looks like to the rest: its observation's columns and its action space."""

    observation: dict[str, Column]
    action: gym.Space

    @classmethod
    def of(cls, environment: Environment) -> "Spaces":
        """Found by making one and closing it."""
        made = environment.make(1)
        try:
            return cls(columns_of(made.observation_space, "observation"), made.action_space)
        finally:
            made.close()

    def model(self, experiment: Experiment, *, learning: bool = False) -> Model:
        """The experiment's model; with the objectives' heads where it is to learn."""
        return experiment.model.build(self.observation, self.action, experiment.objectives() if learning else ())

    def policy(self, experiment: Experiment) -> ModelPolicy:
        """The experiment's policy, its weights still to be loaded.

        Torch's generator is left as it was: in one process it is the learner's, too.
        """
        with torch.random.fork_rng(devices=[]):
            return ModelPolicy(self.model(experiment))

    def schema(self, experiment: Experiment) -> Schema:
        """The columns of a row: those of the store that is learned from, or what actors record.

        Raises:
            ExperimentError: a store's observations or actions are not the environment's.
        """
        recorded = self._recorded(experiment)
        if not experiment.store:
            return recorded
        from replay.store import Store  # Arrow's datasets take a moment to import, and only this wants them

        stored = Store.open(experiment.store).schema
        state = [name for name in recorded.columns if name.startswith("core_state")]
        for name in (*recorded.observation_columns, "action", *state):
            if stored.columns.get(name) != recorded.columns[name]:
                raise ExperimentError(
                    f'{experiment.store}: column "{name}" is {stored.columns.get(name, "missing")}, '
                    f"{experiment.environment.id} and its model want {recorded.columns[name]}"
                )
        return stored

    def _recorded(self, experiment: Experiment) -> Schema:
        action = columns_of(self.action, "action")["action"]
        if action.dtype.startswith("float"):
            action = replace(action, dtype="float32")  # what the policy computes; the environment gets its own type
        # Without values for the weights: to draw those of the Nature network takes 0.1 s, and every process asks.
        with torch.device("meta"):
            extras = recorded_columns(self.model(experiment))
        return Schema.of_rows(self.observation, action, extras)
