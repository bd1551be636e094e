"""An actor: steps environments with the newest weights it may use, and streams rows, block by block."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import time
from typing import Any, Protocol, runtime_checkable

import numpy as np

from actors.environments import EnvironmentFailed, Environments, Step
from actors.episodes import Episode, Episodes
from actors.policy import Policy
from actors.snapshot import NotKept, pickled, unpickled
from replay.stopwatch import Stopwatch

STAGES = ("wait", "room", "inference", "environment", "write", "between")
"""Of an actor's wall time: waiting for weights, for a commit to be taken, policy, environments, writing rows and the
snapshot, between two blocks."""
WORKS = ("inference", "environment", "write")
"""Those in which it does not wait for others."""
NEW_EPISODES = "after a death or a resumption its environments begin new episodes"


@runtime_checkable
class WeightReader(Protocol):
    """Where an actor gets weights from."""

    def read(self, *, have: int, at_least: int) -> tuple[int, dict[str, np.ndarray]] | None:
        """The newest version and its arrays, or None if nothing is newer than `have`.

        Blocks until a version of at least `at_least` exists: the learner, by publishing it, unblocks the actor.
        """
        ...


@runtime_checkable
class RowWriter(Protocol):
    """Where an actor's rows go; `replay.writer.Writer` is one."""

    @property
    def streams(self) -> Sequence[int]:
        """Id of the stream in each slot."""
        ...

    def append(self, columns: dict[str, np.ndarray], slots: np.ndarray | None = None) -> None:
        """Adds one whole row to each of these slots, by default to all."""
        ...

    def commit(self, open_columns: dict[str, np.ndarray], *, version: int) -> None:
        """Makes everything readable that was appended, and the row that has not been acted on yet."""
        ...

    def close(self) -> None:
        """Gives up the segments' mappings."""
        ...


@dataclass(frozen=True)
class Report:
    """What one block amounted to.

    Attributes:
        actor: its name.
        block: its index, which is the learner step that its rows are for.
        version: of the weights that chose every action of it.
        steps: decisions made, i.e. agent steps, over all streams.
        episodes: those that ended in it.
        seconds: spent per stage, see `STAGES`; since the last block's end.
        snapshot: what decides the next block, for whoever goes on from there; None: it cannot be had.
        said: why the actor began new episodes where it was given a snapshot, or why it has none; empty: nothing new.
        loaded: when it asked for new weights and when it had loaded them, in seconds since 1970; None: there were none.
    """

    actor: str
    block: int
    version: int
    steps: int
    episodes: list[Episode]
    seconds: dict[str, float]
    snapshot: bytes | None = None
    said: str = ""
    loaded: tuple[float, float] | None = None


class Actor:
    """Collects blocks of rows from n environments with one policy.

    Who waits: `collect` blocks in `WeightReader.read` until the learner has published version `block -
    max_version_lag`. Blocks and versions share one count, so with lag 0 the rows for learner step k are all chosen by
    version k.

    Args:
        policy: chooses actions; loads weights at the start of a block only.
        environments: n of them, stepped together.
        writer: of the same n streams, slot by slot.
        weights: read at the start of every block.
        name: in reports and in front of failures.
        seeds: one per environment, for their first reset.
        rng: all the randomness of the policy.
        rows: decisions per stream and block. Final observations count as rows: a block ends when every stream has
            grown by this many rows.
        max_version_lag: how many versions older than its block's learner step the weights may be; None: no bound.
        gamma: of the `discounted_return` column.
        start_block: index of the first block; the learner's version where a run is resumed or an actor replaced.
        snapshot: to go on from, of an actor of the same streams; None: begin new episodes.
        unkept: why there are to be no snapshots, in a few words; empty: they are taken after every block.
        watch: of `STAGES`, where the writer's commits count the time for which they wait; None: one of its own.

    Raises:
        EnvironmentFailed: with the actor's name in front.
    """

    def __init__(
        self,
        policy: Policy,
        environments: Environments,
        writer: RowWriter,
        weights: WeightReader,
        *,
        name: str,
        seeds: Sequence[int],
        rng: np.random.Generator,
        rows: int,
        max_version_lag: int | None,
        gamma: float,
        start_block: int = 0,
        snapshot: bytes | None = None,
        unkept: str = "",
        watch: Stopwatch | None = None,
    ):
        self._policy, self._environments, self._writer, self._weights = policy, environments, writer, weights
        self._name, self._rng, self._rows, self._max_version_lag = name, rng, rows, max_version_lag
        self._watch = watch or Stopwatch(STAGES)
        self._block, self._version = start_block, -1
        self._versions = np.full(environments.count, -1, dtype=np.int64)
        self._unkept, self._said = unkept, f"{unkept}: {NEW_EPISODES}" if unkept else ""
        if snapshot is not None and not unkept and self._took_up(snapshot):
            return
        self._episodes = Episodes(writer.streams, gamma)
        self._state: Any = policy.initial_state(environments.count)
        self._first = np.ones(environments.count, dtype=np.bool_)
        with self._named():
            self._observation = environments.reset(seeds)

    def collect(self) -> Report:
        """One block: waits for weights, fills every stream, commits."""
        watch, steps, finished = self._watch, 0, list[Episode]()
        watch.lap("between")
        loaded = self._load_weights()
        watch.lap("wait")
        missing = np.full(self._environments.count, self._rows)
        with self._named():
            while missing.max() > 0:
                step = self._advance(finished)
                steps += int(np.count_nonzero(step.decided))
                missing -= 1
                if step.final is not None:
                    missing[step.final[0]] -= 1
        self._commit()
        snapshot = self._snapshot()  # now that nobody waits for it
        watch.lap("write")
        self._block += 1
        said, self._said = self._said, ""
        return Report(self._name, self._block - 1, self._version, steps, finished, watch.take(), snapshot, said, loaded)

    def close(self) -> None:
        """Closes the environments and the writer."""
        try:
            self._environments.close()
        finally:
            self._writer.close()

    def _snapshot(self) -> bytes | None:
        """What decides the next block, but for weights; None from the first time on that it cannot be had."""
        if self._unkept:
            return None
        state = {
            "streams": tuple(self._writer.streams),
            "environments": self._environments.state(),
            "policy": self._state,
            "rng": self._rng,
            "episodes": self._episodes,
            "first": self._first,
            "observation": self._observation,
        }
        try:
            return pickled(state)
        except NotKept as error:
            self._unkept, self._said = str(error), f"{error}: {NEW_EPISODES}"
            return None

    def _took_up(self, snapshot: bytes) -> bool:
        """Whether it can go on from a snapshot."""
        try:
            state = unpickled(snapshot)
            if state["streams"] != tuple(self._writer.streams):
                raise NotKept(f"the state that was kept is of streams {state['streams']}, not {self._writer.streams}")
        except NotKept as error:
            self._said = f"{error}: its environments began new episodes"
            return False
        self._environments.take_up(state["environments"])
        self._state, self._rng, self._episodes = state["policy"], state["rng"], state["episodes"]
        self._first, self._observation = state["first"], state["observation"]
        return True

    def _load_weights(self) -> tuple[float, float] | None:
        """When it asked for new weights and had them; None: there were none."""
        lag, asked = self._max_version_lag, time()
        at_least = 0 if lag is None else max(0, self._block - lag)
        fresh = self._weights.read(have=self._version, at_least=at_least)
        if fresh is not None:
            self._version, arrays = fresh
            self._policy.load(self._version, arrays)
            self._versions = np.full(self._environments.count, self._version, dtype=np.int64)
        if self._version < at_least:
            raise RuntimeError(
                f"{self._name}: block {self._block} needs weights of version {at_least} or later, got {self._version}; "
                "the weight reader must block until they exist"
            )
        return None if fresh is None else (asked, time())

    def _advance(self, finished: list[Episode]) -> Step:
        """One vector step: act, step, write the rows."""
        watch = self._watch
        decision, self._state = self._policy.act(self._observation, self._state, self._first, self._rng)
        watch.lap("inference")
        step = self._environments.step(decision["action"])
        watch.lap("environment")
        episode, index = self._episodes.number, self._episodes.step
        finished += self._episodes.update(step.reward, step.decided, step.terminated | step.truncated)
        row = self._row(decision, step, episode, index)
        self._writer.append(row)
        if step.final is not None:
            self._append_final(row, *step.final)
        self._observation, self._first = step.observation, step.first
        watch.lap("write")
        return step

    def _row(
        self, decision: dict[str, np.ndarray], step: Step, episode: np.ndarray, index: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The row of the observation that was acted on, with what came of it."""
        if not step.decided.all():  # the action was ignored: recording it would call it a choice
            ignored = {name: decision[name].copy() for name in ("action", "log_prob")}
            for column in ignored.values():
                column[~step.decided] = 0
            decision = {**decision, **ignored}
        return {
            **self._observation,
            **decision,
            "reward": step.reward,
            "discounted_return": self._episodes.discounted,
            "terminated": step.terminated.view(np.uint8),
            "truncated": step.truncated.view(np.uint8),
            "mask": step.decided.view(np.uint8),
            "episode": episode,
            "step": index,
            "policy_version": self._versions,
        }

    def _append_final(self, row: dict[str, np.ndarray], slots: np.ndarray, observation: dict[str, np.ndarray]) -> None:
        """Final observations that the environments have already left behind, as rows without a decision."""
        blank = {name: np.zeros_like(column[slots]) for name, column in row.items()}
        known = {"episode": self._episodes.number, "step": self._episodes.step, "policy_version": self._versions}
        self._writer.append({**blank, **observation, **{k: column[slots] for k, column in known.items()}}, slots)
        self._episodes.begin(slots)

    def _commit(self) -> None:
        open_columns = {**self._observation, "episode": self._episodes.number, "step": self._episodes.step}
        self._writer.commit(open_columns, version=self._version)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except EnvironmentFailed as error:
            raise EnvironmentFailed(f"{self._name}: {error}") from error
