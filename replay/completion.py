"""Rows of one stream as a store wants them: what may be missing is filled in, what cannot be right is refused."""

import re
from collections.abc import Callable

import numpy as np

from replay.pieces import PLACE, ExchangeError, Piece, guessed
from replay.schema import ROW, Column, Schema

NEEDED = ("action", "reward", "terminated", "truncated")
"""Columns that nothing can stand in for, beside an observation and one of those below."""

ENDS = ("mask", "episode", "step")
"""Columns any of which tells an episode's final observation from the next episode's first."""


Place = Callable[[int], str]
"""How errors call a row, by its number in the call: the file, and the row's number in it."""


class Completion:
    """Completes the rows of one stream, which must come in order.

    What is missing becomes: `log_prob` 0, `policy_version` 0, `mask` 0 on the row after an end and 1 elsewhere,
    `episode` and `step` counted, `discounted_return` computed.

    Args:
        stream: its id, from which its episodes are numbered.
        gamma: discount of the return.
    """

    def __init__(self, stream: int, gamma: float) -> None:
        self._gamma = gamma
        self._ended = False  # the latest row ended an episode
        self._begins = True  # the next row begins one
        self._known: int | None = None  # the latest row's episode, if it was given
        self._episode, self._step, self._total = (stream << 32) - 1, -1, 0.0

    def complete(self, columns: dict[str, np.ndarray], place: Place) -> dict[str, np.ndarray]:
        """The same columns and those that were missing.

        Args:
            columns: (n, ...) each; those of `ROW` that are there have its dtypes.
            place: for errors.

        Raises:
            ExchangeError: a flag is neither 0 nor 1, an episode has no final observation, or two run into each other.
        """
        for name in ("terminated", "truncated", "mask"):
            if name in columns:
                _refuse(columns[name] > 1, place, f'column "{name}" is neither 0 nor 1')
        ended = (columns["terminated"] | columns["truncated"]) > 0
        final = np.concatenate([[self._ended or self._opens_with_an_end(columns)], ended[:-1]])
        begins = np.concatenate([[self._begins], final[:-1]])
        _refuse(final & ended, place, "a final observation ends its episode again: only the action before it does")
        self._check_ends(columns, final, begins, place)
        count = len(ended)
        added: dict[str, np.ndarray] = {
            "log_prob": np.zeros(count, np.float32),
            "policy_version": np.zeros(count, np.int64),
            "mask": (~final).astype(np.uint8),
            "episode": self._episode + np.cumsum(begins, dtype=np.int64),
            "step": self._steps(begins),
        }
        if "discounted_return" not in columns:
            added["discounted_return"] = self._returns(columns["reward"], final)
        self._ended, self._begins = bool(ended[-1]), bool(final[-1])
        self._episode, self._step = int(added["episode"][-1]), int(added["step"][-1])
        return {**added, **columns}

    def _opens_with_an_end(self, columns: dict[str, np.ndarray]) -> bool:
        """Whether the stream's first row is a final observation: its beginning was not kept."""
        return self._step < 0 and "mask" in columns and not columns["mask"][0]

    def _check_ends(self, columns: dict[str, np.ndarray], final: np.ndarray, begins: np.ndarray, place: Place) -> None:
        """An episode of n actions has n + 1 rows, the last without a decision; then the next one begins."""
        hint = "an episode's last observation needs a row of its own, with mask 0"
        if "mask" in columns:
            _refuse(final & (columns["mask"] > 0), place, f"the row after an end has mask 1: {hint}")
        if "step" in columns:
            _refuse(final & (columns["step"] == 0), place, f"the row after an end has step 0: {hint}")
        if "episode" in columns:
            number = columns["episode"]
            before = np.concatenate([number[:1] if self._known is None else [self._known], number[:-1]])
            changed = number != before
            _refuse(final & changed, place, f"the row after an end is of another episode: {hint}")
            unmarked = "another episode begins, but no end was marked: its last action terminated or truncated it"
            _refuse(changed & ~begins, place, unmarked)
            self._known = int(number[-1])

    def _steps(self, begins: np.ndarray) -> np.ndarray:
        """Index of each row in its episode."""
        rows = np.arange(len(begins))
        start = np.maximum.accumulate(np.where(begins, rows, -1 - self._step))
        return (rows - start).astype(np.int32)

    def _returns(self, reward: np.ndarray, final: np.ndarray) -> np.ndarray:
        """G_t = r_t + gamma G_(t-1); 0 on final observations."""
        returns, total = np.zeros(len(reward), np.float32), self._total
        for row, (value, over) in enumerate(zip(reward.tolist(), final.tolist(), strict=True)):
            total = 0.0 if over else value + self._gamma * total
            returns[row] = total
        self._total = total
        return returns


def complete_schema(piece: Piece) -> Schema:
    """The schema of the store: the file's columns, and those that every row has.

    Raises:
        ExchangeError: a column is missing that nothing can stand in for.
    """
    has = [name for name in piece.columns if name not in PLACE]
    lacking = [name for name in NEEDED if name not in has]
    if not any(re.match(r"observation(\.|$)", name) for name in has):
        lacking.insert(0, "observation")
    if lacking:
        raise ExchangeError(f"{piece.source} has no column {', '.join(lacking)}: it has {', '.join(has)}")
    if not set(ENDS) & set(has):
        raise ExchangeError(
            f"{piece.source} has none of the columns {', '.join(ENDS)}: without one, a final observation cannot be "
            "told from the next episode's first"
        )
    own = [name for name in has if name not in ROW]
    found = {name: piece.declared.get(name) or guessed(name, piece.columns[name]) for name in own}
    return Schema(_in_order({**found, **ROW}))


def _in_order(columns: dict[str, Column]) -> dict[str, Column]:
    """Observations, action, the usual columns, extras: the order that rows have everywhere."""
    rank = {"action": 1} | dict.fromkeys(ROW, 2)
    return dict(
        sorted(columns.items(), key=lambda item: 0 if item[0].split(".")[0] == "observation" else rank.get(item[0], 3))
    )


def _refuse(wrong: np.ndarray, place: Place, what: str) -> None:
    if wrong.any():
        raise ExchangeError(f"{place(int(np.argmax(wrong)))}: {what}")
