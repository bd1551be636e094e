"""How failures are put to a person: one sentence, what helps on lines of their own, and an exit code."""

import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence

MISTAKES = (
    "learners.description:DescriptionError",
    "learners.nets.encoders:EncoderError",
    "actors.watched:EnvironmentFailed",
    "actors.environments:EnvironmentProblem",
    "replay.pieces:ExchangeError",
    "cluster.experiment:ExperimentError",
    "learners.exported:ExportError",
    "learners.objective:MethodError",
    "learners.extras:MissingExtra",
    "replay.logged:NotLogged",
    "cluster.recipe:RecipeError",
    "cluster.run_folder:RunFolderError",
    "replay.schema:SchemaError",
    "actors.spaces:SpaceError",
    "replay.segment:StoreError",
    "replay.table:TableError",
    "learners.update:UpdateError",
)
"""What a user can mend: the command, the experiment, their environment. By module and name, since a command that only
reads files would pay seconds to import all modules whose errors it never sees."""

TROUBLES = (
    "learners.checkpoint:CheckpointError",
    "replay.archive_file:CorruptSegment",
    "replay.draw_log:DrawLogError",
    "replay.extents:ExtentsError",
    "replay.journal:JournalError",
    "learners.not_finite:NotFinite",
    "builtins:OSError",
    "learners.checks:OutOfBounds",
    "cluster.world:ProcessDied",
    "learners.learner:StaleRows",
    "builtins:TimeoutError",
)
"""What went wrong around a correct command: a full disk, a damaged file, a process that died, a loss that is not a
number."""


def explained(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command; its exit code, and a sentence where it failed."""
    try:
        return command(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except Exception as error:
        if is_mistake(error):
            return _told(error, 2)
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise
        return _told(error, 1, foreseen=_is_one_of(TROUBLES, error))


def is_mistake(error: Exception) -> bool:
    """Whether it is one of `MISTAKES`, with a sentence of its own."""
    return _is_one_of(MISTAKES, error)


def _is_one_of(names: Sequence[str], error: Exception) -> bool:
    return any(f"{kind.__module__}:{kind.__qualname__}" in names for kind in type(error).__mro__)


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
