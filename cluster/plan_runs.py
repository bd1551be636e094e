"""What a finished run's metrics tell of costs: less than a run that was watched, whose processes were looked at."""

from pathlib import Path
from statistics import mean

from cluster.experiment import ExperimentError
from cluster.metrics import read_metrics
from cluster.parsing import recorded
from cluster.plan_costs import Seen
from cluster.plan_design import layout
from cluster.plan_stages import spread, stage_seconds
from cluster.run_folder import RunFolder

WARM_UP = 0.2
"""Part of a run's learner steps that come first and are not counted."""
LEAST = 5


def seen_in(run: Path) -> Seen:
    """A run as its metrics show it.

    Raises:
        ExperimentError: it has too few learner steps, or none of its actors.
        RunFolderError: there is no such run.
    """
    folder = RunFolder.open(run)
    _, experiment, _ = recorded(folder)
    rows = [row for row in read_metrics(folder.path) if "time/learner_update" in row]
    rows = rows[int(WARM_UP * len(rows)) :]
    blocks = [block for row in rows if (block := stage_seconds(row, "actor"))]
    if len(rows) < LEAST or not blocks:
        raise ExperimentError(f"{folder.path} has {len(rows)} learner steps to learn from, wanted at least {LEAST}")
    topology, first, last = experiment.topology, rows[0], rows[-1]
    if topology.local or len({row["step"] for row in rows}) < len(rows):
        raise ExperimentError(f"{folder.path} ran in one process: nothing of it tells what messages cost; wanted Ray")
    return Seen(
        **layout(experiment),
        step=(last["time"] - first["time"]) / (len(rows) - 1),
        block=mean(blocks),
        update=mean(stage_seconds(row, "learner") for row in rows),
        decisions=(last["step"] - first["step"]) / (len(rows) - 1),
        spread=spread(blocks),
    )
