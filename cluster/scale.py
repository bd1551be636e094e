"""`contrail scale`: how the speed of a recipe grows with actors and learners, and what limits it."""

from collections.abc import Sequence
from contextlib import chdir
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster.experiment import Experiment, ExperimentError
from cluster.lock import holding
from cluster.parsing import parse
from cluster.run import RunOptions
from cluster.run_folder import RunFolder, RunFolderError, default_name
from cluster.scale_compare import compared, earlier, in_both
from cluster.scale_events import write_events
from cluster.scale_folder import ScaleFolder
from cluster.scale_measure import NoMeasurement, measured_run
from cluster.scale_options import ScaleOptions, parse_options
from cluster.scale_plan import Point, planned
from cluster.scale_plots import drawn
from cluster.scale_results import Results, collected
from cluster.scale_run import Carry, Process, await_ends
from cluster.scale_table import PAGE, advice, described, laws, table, write
from cluster.stop import StopRequest, stop_requests
from cluster.sweep_grid import Group, grouped, plain
from learners.extras import MissingExtra

USAGE = """\
usage: contrail scale RECIPE [flags]          measure its speed with so many actors and learners
       contrail scale --resume SCALE [flags]  go on with the runs that were not measured, and tell the results

Flags are those below, and those of `contrail train RECIPE --help`, which are the same for all runs.

  strong scaling: the environments are shared by more actors    contrail scale ppo --actors 1 2 4 --envs 32
  weak scaling: every actor brings its own environments         contrail scale ppo --actors 1 2 4 --envs-per-actor 8 32
  learners: one number of actors, several of learners           contrail scale curl_ppo --actors 4 --learners 1 2
"""
WIDE = 120
"""Columns of the table, also where a terminal has fewer: it would leave some out."""


def command_scale(arguments: list[str]) -> int:
    """contrail scale RECIPE [flags]."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, flush=True)
        if arguments:
            parse_options(["--help"], ScaleOptions())
        return 2
    scale = _continued(arguments[1:]) if arguments[0] == "--resume" else _new(arguments[0], arguments[1:])
    before = _before(scale)
    scale.path.mkdir(parents=True, exist_ok=True)
    with holding(scale.path) as alone:
        if not alone:
            raise RunFolderError(f"{scale.path} is being measured by another process: wait for it, or stop it first")
        scale.save()
        with stop_requests() as stop:
            carry_out(scale, Process(stop), stop)
        with chdir(scale.folder):  # the recipe's file may be given from there
            return conclude(scale, before, stop)


def _before(scale: ScaleFolder) -> dict[str, Any] | None:
    """What it is to be compared with, which has something in common with it; None: nothing."""
    if not scale.options.compare:
        return None
    found = earlier(Path(scale.options.compare), scale.recipe, list(scale.flags))
    in_both(found, [point.name for point in scale.plan.points])
    return found


def _new(recipe: str, arguments: list[str]) -> ScaleFolder:
    """A measurement as its flags describe it, which may have been begun earlier."""
    own, flags = _told_apart(arguments)
    options = parse_options(own, ScaleOptions())
    plan, base, kept = planned(recipe, flags, options)
    common = [token for flag, values in flags for token in (flag, *values)]
    scale = ScaleFolder(_path(recipe, base, kept, options), recipe, common, Path.cwd(), plan, options)
    scale.check_goes_on()
    return scale


def _told_apart(arguments: Sequence[str]) -> tuple[list[str], list[Group]]:
    """Our own flags, and those of all runs."""
    names = {plain(field.name) for field in fields(ScaleOptions)}
    groups = grouped(arguments)
    own = [token for flag, values in groups if plain(flag) in names for token in (flag, *values)]
    return own, [group for group in groups if plain(group[0]) not in names]


def _path(recipe: str, base: Experiment, kept: RunOptions, options: ScaleOptions) -> Path:
    """Where it is: a name with a folder in it is taken as a path, as that of a run is."""
    path = Path(options.name or default_name(Path(recipe.partition(":")[0]).stem, base.environment.id))
    return (path if len(path.parts) > 1 else kept.folder / f"scale-{path}").resolve()


def _continued(arguments: list[str]) -> ScaleFolder:
    """One that was begun earlier, with more repeats, or beside an earlier one."""
    if not arguments:
        raise ExperimentError("--resume stands alone: give the folder of a measurement, as in --resume runs/scale-NAME")
    scale = ScaleFolder.open(Path(arguments[0]))
    own, others = _told_apart(arguments[1:])
    given = {plain(flag) for flag, _ in grouped(own)} | {plain(flag) for flag, _ in others}
    if given - {"compare", "repeats", "patience"}:
        raise ExperimentError(
            f"--{min(given - {'compare', 'repeats', 'patience'})} cannot change where a measurement goes on: leave it "
            "out, or start a new one"
        )
    scale = replace(scale, options=parse_options(own, replace(scale.options, compare="")))
    scale.check_goes_on()
    return scale


def carry_out(scale: ScaleFolder, carry: Carry, stop: StopRequest) -> None:
    """Run what was not measured yet, one after another, until somebody asks to stop.

    Args:
        scale: what there is to run.
        carry: carries out one run.
        stop: whether somebody asked.

    Raises:
        RunFolderError: another process still writes one of the runs.
    """
    order = scale.plan.order(scale.options.repeats)
    left = [
        (point, repeat)
        for point, repeat in order
        if scale.error(point, repeat) != "" or _speed(scale, point, repeat)[1]
    ]
    each = f"{scale.options.steps:,} env steps" if scale.options.steps else f"{scale.options.seconds:g} s after warm-up"
    print(f"{len(left)} of {len(order)} runs are to be measured, {each} each, in {scale.path}", flush=True)
    await_ends([scale.run(point, repeat) for point, repeat in left], stop)
    if stop.signal:
        return
    for count, (point, repeat) in enumerate(left, start=1):
        error = carry(scale, point, repeat)
        if stop.signal:
            return
        told = ""
        if not error:
            told, error = _speed(scale, point, repeat)
        scale.ended(point, repeat, error)
        print(f"{count} of {len(left)}: {point.name}, repeat {repeat + 1}: {told or f'failed: {error}'}", flush=True)


def _speed(scale: ScaleFolder, point: Point, repeat: int) -> tuple[str, str]:
    """How fast a run was, or why that cannot be told."""
    try:
        found = measured_run(scale.run(point, repeat), scale.options.warm_up)
    except NoMeasurement as error:
        return "", str(error)
    return f"{found.trained:,.0f} env steps/s", ""


def conclude(scale: ScaleFolder, before: dict[str, Any] | None, stop: StopRequest) -> int:
    """Write and print what was measured; the exit code.

    Args:
        scale: whose runs have ended.
        before: content of the `scale.json` to compare with; None: there is none.
        stop: whether it was stopped.
    """
    results, title, console = collected(scale), _title(scale), _console()
    write(scale, results, title, _facts(scale))
    console.print(table(results, f"{title}, in {scale.path}", knobs=False).rich())
    for line in [*advice(results), "", *laws(results)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    print(f"written: {scale.path / PAGE}, and beside it as JSON and CSV{_pictures(scale, results, title)}")
    if stop.signal:
        print(f"continue with: contrail scale --resume {scale.path}")
        return 128 + stop.signal
    failed = any(result.error for result in results.results.values())
    if failed:
        print(f"runs failed; try those again with: contrail scale --resume {scale.path}")
    return int(failed | (before is not None and _fell(before, described(scale, results), console)))


def _title(scale: ScaleFolder) -> str:
    environment = parse(scale.recipe, list(scale.flags))[0].environment.id
    return " ".join([scale.recipe, "on", environment, *scale.flags])


def _console() -> Console:
    """One that has room for the table."""
    return Console(width=max(WIDE, Console().width))


def _facts(scale: ScaleFolder) -> dict[str, Any]:
    """With what and on what the runs were measured, as the first of them wrote it down."""
    for point in scale.plan.points:
        for repeat in range(scale.options.repeats):
            run = RunFolder(scale.run(point, repeat))
            if scale.error(point, repeat) == "":
                found = run.load_experiment()
                host = {"cores": found["host"]["cores"], "host": found["host"]["name"]}
                return host | found["versions"] | {"commit": found["commit"]}
    return {}


def _pictures(scale: ScaleFolder, results: Results, title: str) -> str:
    """Draw the plots and write TensorBoard's files; where they are, in words."""
    try:
        pictures = drawn(results, title, scale.path)
        told = "".join(f", {picture.name}" for picture in pictures)
    except MissingExtra as error:
        pictures, told = [], f"; no plots: {error}"
    board = write_events(scale.path, results, (scale.path / PAGE).read_text(), pictures)
    return f"{told}\ncurves over the number of processes: tensorboard --logdir {board}"


def _fell(before: dict[str, Any], now: dict[str, Any], console: Console) -> bool:
    """Print both measurements side by side; whether something fell."""
    told, fell = compared(before, now)
    console.print(told.rich())
    print(f"{fell} of {len(told.cells)} speeds fell" if fell else f"none of {len(told.cells)} speeds fell")
    return fell > 0
