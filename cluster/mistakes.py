"""How failures are put to a person: one sentence, what helps on lines of their own, and an exit code."""

import os
import select
import sys
import traceback
from collections.abc import Callable

from actors.environments import EnvironmentFailed, EnvironmentProblem
from actors.spaces import SpaceError
from cluster.embedded import ProcessDied
from cluster.experiment import ExperimentError
from cluster.recipe import RecipeError
from cluster.run_folder import RunFolderError
from learners.checkpoint import CheckpointError
from learners.checks import OutOfBounds
from learners.description import DescriptionError
from learners.exported import ExportError
from learners.extras import MissingExtra
from learners.learner import StaleRows
from learners.nets.encoders import EncoderError
from learners.not_finite import NotFinite
from learners.objective import MethodError
from learners.update import UpdateError
from replay.archive import CorruptSegment
from replay.draw_log import DrawLogError
from replay.exchange import ExchangeError
from replay.extents import ExtentsError
from replay.journal import JournalError
from replay.logged import NotLogged
from replay.schema import SchemaError
from replay.segment import StoreError
from replay.table import TableError

MISTAKES = (
    DescriptionError,
    EncoderError,
    EnvironmentFailed,
    EnvironmentProblem,
    ExchangeError,
    ExperimentError,
    ExportError,
    MethodError,
    MissingExtra,
    NotLogged,
    RecipeError,
    RunFolderError,
    SchemaError,
    SpaceError,
    StoreError,
    TableError,
    UpdateError,
)
"""What a user can mend: the command, the experiment, their environment."""

TROUBLES = (
    CheckpointError,
    CorruptSegment,
    DrawLogError,
    ExtentsError,
    JournalError,
    NotFinite,
    OSError,
    OutOfBounds,
    ProcessDied,
    StaleRows,
    TimeoutError,
)
"""What went wrong around a correct command: a full disk, a damaged file, a process that died, a loss that is not a
number."""


def explained(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command; its exit code, and a sentence where it failed."""
    try:
        return command(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except MISTAKES as error:
        return _told(error, 2)
    except TROUBLES as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        return _told(error, 1)
    except Exception as error:  # noqa: BLE001 - nobody foresaw it: the traceback is kept or shown
        return _told(error, 1, foreseen=False)


def _nobody_reads() -> bool:
    """Whether it is our own output that nobody wants any more, and not some other pipe that broke."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _told(error: Exception, code: int, *, foreseen: bool = True) -> int:
    """Say what happened; with its traceback where that is asked for, or neither foreseen nor kept in a run's logs."""
    notes = getattr(error, "__notes__", [])
    if os.environ.get("CONTRAIL_TRACEBACK") or not (foreseen or notes):
        traceback.print_exception(error)
    sentence = str(error) if foreseen else f"{type(error).__name__}: {error}"
    print("\n  ".join([f"contrail: {sentence}", *notes]), file=sys.stderr)
    return code
