"""Checks: what a shard refuses, in the words that it uses."""

from collections.abc import Mapping

import numpy as np

from replay.messages import Commit
from replay.sources import Ledger
from replay.table import Table, TableError, watched


class CommitLost(ValueError):
    """A commit that does not continue where its writer's previous one ended."""


def check_batches(tables: Mapping[str, Table], *, shards: int, ranks: int) -> None:
    """Refuse batches that cannot be shared evenly.

    Raises:
        TableError: a batch does not divide by shards * ranks.
    """
    for name, table in tables.items():
        if table.batch % (shards * ranks):
            text = f'table "{name}": batch {table.batch} does not divide by {shards} shards * {ranks} ranks'
            raise TableError(text)


def check_watched(tables: Mapping[str, Table], commit: Commit) -> None:
    """Refuse a writer that does not tell what the tables have to know.

    Raises:
        TableError: windows stay within a column that it does not watch.
    """
    if missing := [column for column in watched(tables) if column not in commit.changes]:
        text = f'{commit.writer} does not watch column "{missing[0]}", which windows stay within'
        raise TableError(f"{text}: make the writer with watch=watched(tables)")


def check_continues(ledger: Ledger | None, commit: Commit, *, all_known: bool) -> None:
    """Refuse a commit after one that never came.

    Args:
        ledger: of its writer; None: it is the first that comes of it.
        commit: the commit.
        all_known: what any writer ever committed, by a journal. Without one a shard takes up writers under way.

    Raises:
        CommitLost: rows before this one's are unknown.
    """
    if ledger is None:
        if all_known and any(commit.begins):
            begins = f"commit {commit.sequence}, the first that came, begins at row {max(commit.begins)}"
            raise CommitLost(f"{commit.writer}: {begins}, wanted 0: a commit was lost; restart this writer")
        return
    gaps = np.flatnonzero((np.array(commit.begins) >= ledger.end) & ledger.owns)
    if len(gaps):
        slot = int(gaps[0])
        text = f"{commit.writer}: commit {commit.sequence} begins at row {commit.begins[slot]} of stream "
        wanted = (
            f"{ledger.streams[slot]}, wanted at most {ledger.end[slot] - 1}: a commit was lost; restart this writer"
        )
        raise CommitLost(text + wanted)
