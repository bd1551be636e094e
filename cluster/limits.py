"""Limits of tables that are changed while a run goes on: a file in its folder, which the run looks at.

`contrail limit` writes it, the run's loop reads it, and a run that is resumed reads it again.
"""

import json
from collections.abc import Mapping
from typing import Any

from cluster.experiment import Experiment
from cluster.run_folder import RunFolder, RunFolderError
from cluster.whole_file import replace_text
from replay.limiter import check_ratio
from replay.table import LIMITS

Limits = dict[str, dict[str, Any]]
"""By table, its fields and their new values."""


class LimitsFile:
    """The limits that somebody asked for, and whether they are new.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / "replay" / "limits.json"
        self._seen = -1

    def changed(self) -> Limits:
        """All limits that were asked for, if that changed since the last call; else none.

        Raises:
            RunFolderError: the file is damaged.
        """
        try:
            written = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        if written == self._seen:
            return {}
        self._seen = written
        return self.read()

    def read(self) -> Limits:
        """All limits that were asked for.

        Raises:
            RunFolderError: the file is damaged.
        """
        try:
            return json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise RunFolderError(f"{self._path} is damaged ({error}): remove it") from error

    def ask(self, experiment: Experiment, table: str, limits: Mapping[str, Any], *, held: int = 0) -> None:
        """Ask for limits of a table, beside those that were asked for before.

        Args:
            experiment: of the run.
            table: its name.
            limits: fields and their new values.
            held: windows that it holds.

        Raises:
            ExperimentError: the run would stand still with these limits.
            RunFolderError: there is no such table, or nothing was asked.
            TableError: a number is out of range.
        """
        tables = experiment.tables
        if table not in tables:
            raise RunFolderError(f"there is no table {table!r}: the run has {', '.join(tables)}")
        if not limits:
            flags = ", ".join("--" + name.replace("_", "-") for name in LIMITS)
            raise RunFolderError(f"nothing to change: give one of {flags}")
        asked = self.read()
        asked[table] = {**asked.get(table, {}), **limits}
        limited = tables[table].with_limits(asked[table])
        check_ratio(limited)
        experiment.check_table(table, limited, held=held)
        replace_text(self._path, json.dumps(asked, indent=1))
