"""The whole description of a run: a method as five values, and where it runs."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import gymnasium as gym
import torch

from actors.environments import Environment, environment_seeds
from actors.spaces import columns_of
from learners.gradient import Gradient
from learners.model import ActorCritic, Model
from learners.objective import Objective
from learners.policy import ModelPolicy, recorded_columns
from learners.update import Update
from replay.schema import Column, Schema
from replay.table import Table


class ExperimentError(ValueError):
    """An experiment whose parts do not fit together: says what was got, what was wanted and what to change."""


@dataclass(frozen=True)
class Topology:
    """Where a run runs.

    Attributes:
        actors: processes that step environments; 0 takes one per core, as far as the environments divide.
        learners: processes that learn together, each on its share of every batch; 0 takes one per GPU, or where there
            is none one per core, as far as the environments divide and each keeps eight of them.
        shards: processes that hold the replay store's index.
        threads: of each learner. More learners are faster than more threads, and do not suffer on a shared machine.
        gpus_per_learner: 0 learns on the CPU, 1 gives each learner a GPU of its own; -1 takes a GPU if there is one.
        max_version_lag: newest weights minus those an actor may start a block with. 0 is strictly on-policy: actors
            and learners take turns; 1 overlaps them.
        local: everything in this process, without Ray, in turns: for debugging, and the specification of the rest.
        address: a running Ray cluster to join, "auto" for the one on this machine; empty starts one inside this run.
    """

    actors: int = 0
    learners: int = 0
    shards: int = 1
    threads: int = 1
    gpus_per_learner: int = -1
    max_version_lag: int = 0
    local: bool = False
    address: str = ""

    def resolved(self, envs: int) -> "Topology":
        """The same with every number that was left to the machine filled in."""
        gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
        gpus_per_learner = min(gpus, 1) if self.gpus_per_learner < 0 else self.gpus_per_learner
        # Fewer windows per learner than these would leave contrastive losses little to tell apart.
        learners = 1 if self.local else divisor(envs, gpus if gpus_per_learner else min(cores, envs // 8))
        return replace(
            self,
            actors=self.actors or divisor(envs, cores),
            learners=self.learners or learners,
            gpus_per_learner=gpus_per_learner,
        )


LEAST = {"actors": 0, "learners": 0, "shards": 1, "threads": 1, "gpus_per_learner": -1, "max_version_lag": 0}
"""The smallest number that makes sense for each field of a topology."""


def at_least(name: str, value: int, least: int) -> None:
    """Raise an ExperimentError that names a value below its least."""
    if value < least:
        raise ExperimentError(f"{name} is {value}, wanted at least {least}")


def divisor(whole: int, most: int) -> int:
    """The largest divisor of `whole` that is not above `most`."""
    return max(part for part in range(1, max(1, min(whole, most)) + 1) if whole % part == 0)


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
            checked._check_table(name, table)
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

    def _check_table(self, name: str, table: Table) -> None:
        """Every learner step must find its batch, and at lag 0 use up what one block of all actors brings."""
        ways = self.topology.shards * self.topology.learners
        if table.batch % ways:
            raise ExperimentError(
                f'table "{name}" draws {table.batch} items a step, which do not divide over {self.topology.shards} '
                f"shards x {self.topology.learners} learners: change the batch, --topology.shards or .learners"
            )
        if self.store:
            if table.read_limit:
                raise ExperimentError(
                    f'table "{name}" reads its windows {table.read_limit} times, but nobody adds any to '
                    f"{self.store}: let reads be 0, without bound"
                )
            if table.samples_per_insert is not None:
                raise ExperimentError(f'table "{name}": samples_per_insert with {self.store}, to which nobody adds')
            return
        # A block shows its rows and the open one after them.
        windows = (self.rows + 1 - table.window) // table.stride_rows + 1 if self.rows + 1 >= table.window else 0
        first = windows * self.envs * (self.topology.max_version_lag + 1)
        if (
            table.samples_per_insert is not None
            and table.samples_per_insert * windows * self.envs < table.batch_windows
        ):
            raise ExperimentError(
                f'table "{name}" draws {table.batch_windows} windows a step, for which {windows * self.envs} come in: '
                f"samples_per_insert {table.samples_per_insert:g} would stop the run, wanted at least "
                f"{table.batch_windows / max(1, windows * self.envs):.3g}"
            )
        if table.min_windows > first and not table.reads_once:
            raise ExperimentError(
                f'table "{name}" waits for {table.min_windows} windows, but after {first} of them actors wait for the '
                "first learner step: lower min_items, or raise rows or envs"
            )
        if table.reads_once and windows * self.envs != table.batch:
            raise ExperimentError(
                f'table "{name}" draws {table.batch} windows of {table.window} rows a step, but blocks of {self.rows} '
                f"rows of {self.envs} environments hold {windows * self.envs}: it would never be filled evenly, "
                "make them equal"
            )

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
        return Schema.of_rows(self.observation, action, recorded_columns(experiment.model))
