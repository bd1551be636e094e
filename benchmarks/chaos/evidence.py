"""What a run left behind, read once for all checks."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.experiment import Experiment
from cluster.faults import FILE
from cluster.inspect import inspect
from cluster.metrics import read_metrics
from cluster.parsing import recorded
from cluster.run_folder import RunFolder
from replay.store import Store

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """The files of a run that has ended.

    Attributes:
        run: its folder.
        code: exit code of its command.
    """

    run: Path
    code: int

    @property
    def folder(self) -> RunFolder:
        """The run."""
        return RunFolder.open(self.run)

    @cached_property
    def experiment(self) -> Experiment:
        """As it was trained."""
        return recorded(self.folder)[1]

    @cached_property
    def steps(self) -> list[dict[str, int | float]]:
        """The metrics of every learner step, in order."""
        return [line for line in read_metrics(self.run) if "train/version" in line]

    @cached_property
    def told(self) -> list[dict[str, Any]]:
        """What the run itself wrote down of deaths."""
        file = self.run / FILE
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    @cached_property
    def draws(self) -> Columns:
        """The log of draws of the one table: a window each, those of steps that were made."""
        columns = _columns(Store.open(self.run).draws())
        return {name: values[columns["step"] < len(self.steps)] for name, values in columns.items()}

    @cached_property
    def rows(self) -> Columns:
        """All rows of the store: writer, stream, row and mask, in this order of importance."""
        table = Store.open(self.run).dataset().to_table(columns=["writer", "stream", "row", "mask"])
        columns = _columns(table)
        order = np.lexsort((columns["row"], columns["stream"], columns["writer"]))
        return {name: values[order] for name, values in columns.items()}

    @cached_property
    def committed(self) -> int:
        """Rows of commits that the shards took, by their journals: the metrics end before the last of them."""
        return int(inspect(self.folder, self.experiment).store["rows_committed"])


def grouped(columns: Columns, *by: str) -> dict[tuple, Columns]:
    """Rows of columns by the values of some of them; within a group they keep their order."""
    keys = list(zip(*(columns[name].tolist() for name in by), strict=True))
    places: dict[tuple, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return {key: {name: values[mine] for name, values in columns.items()} for key, mine in places.items()}


def _columns(table: pa.Table) -> Columns:
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
