"""`contrail sweep`: many runs of one recipe, side by side, by Ray Tune."""

from contextlib import chdir
from dataclasses import asdict
from pathlib import Path

from cluster.experiment import Experiment, ExperimentError
from cluster.lock import holding
from cluster.parsing import parsed
from cluster.run import RunOptions
from cluster.run_folder import RunFolderError, default_name
from cluster.stop import stop_requests
from cluster.sweep_board import Board
from cluster.sweep_folder import SweepFolder, settled
from cluster.sweep_grid import grouped, planned
from cluster.sweep_options import SweepOptions, parse_options
from cluster.sweep_table import PAGE
from learners.extras import needed

USAGE = """\
usage: contrail sweep RECIPE [flags]          every combination of the flags' values is a run
       contrail sweep --resume SWEEP [flags]  go on with the runs that are not finished

Flags are those of `contrail train RECIPE --help`, with one value or several, as in --lr 1e-4 3e-4 --seed 0 1 2, and
those that begin with --sweep.:
"""


def command_sweep(arguments: list[str]) -> int:
    """contrail sweep RECIPE [flags]."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, flush=True)
        if arguments:
            parse_options(["--help"], SweepOptions())
        return 2
    needed("ray.tune", "contrail sweep is done by Ray Tune", "sweep")
    sweep, options = _continued(arguments[1:]) if arguments[0] == "--resume" else _new(arguments[0], arguments[1:])
    with chdir(sweep.folder):
        _check(sweep, options)
    sweep.path.mkdir(parents=True, exist_ok=True)
    with holding(sweep.path) as alone:
        if not alone:
            raise RunFolderError(f"{sweep.path} is being swept by another process: wait for it, or stop it first")
        sweep.save(asdict(options))
        return _carry_out(sweep, options)


def _new(recipe: str, arguments: list[str]) -> tuple[SweepFolder, SweepOptions]:
    """A sweep as its flags describe it, which may have been begun earlier."""
    groups = grouped(arguments)
    own = [group for group in groups if group[0].startswith("--sweep.")]
    options = parse_options([token for flag, values in own for token in (flag, *values)], SweepOptions())
    others = [group for group in groups if group not in own]
    if any(flag == "--run.name" for flag, _ in others):
        raise ExperimentError("--run.name is given, but a sweep names its runs: give --sweep.name")
    runs = planned(recipe, others)
    experiment, kept, _ = parsed(recipe, list(runs[0].arguments))
    sweep = SweepFolder(_path(recipe, experiment, kept, options), recipe, Path.cwd(), runs)
    sweep.check_goes_on()
    return sweep, options


def _check(sweep: SweepFolder, options: SweepOptions) -> None:
    """Whether the scheduler can do anything with these runs, before there is a folder."""
    steps = max(run.steps for run in sweep.runs)
    if options.scheduler == "asha":
        options.grace(steps)
    elif options.scheduler == "pbt":
        from cluster.sweep_population import check_members

        options.look(steps)
        check_members(sweep)


def _path(recipe: str, experiment: Experiment, kept: RunOptions, options: SweepOptions) -> Path:
    """Where the sweep is: a name with a folder in it is taken as a path, as that of a run is."""
    name = default_name(f"{Path(recipe.partition(':')[0]).stem}-sweep", experiment.environment.id)
    path = Path(options.name or name)
    return (path if len(path.parts) > 1 else kept.folder / path).resolve()


def _continued(arguments: list[str]) -> tuple[SweepFolder, SweepOptions]:
    """A sweep that was begun earlier, its own flags changed by those that are given now."""
    if not arguments:
        raise ExperimentError("--resume stands alone: give the folder of a sweep, as in --resume runs/NAME")
    sweep, options = SweepFolder.open(Path(arguments[0]))
    for flag, _ in grouped(arguments[1:]):
        if not flag.startswith("--sweep.") or flag == "--sweep.name":
            raise ExperimentError(f"{flag} cannot change where a sweep goes on: leave it out, or start a new sweep")
    return sweep, parse_options(arguments[1:], SweepOptions(**options))


def _carry_out(sweep: SweepFolder, options: SweepOptions) -> int:
    """Exit code 0 when no run is left to train, 1 when some failed, as shells have it when a signal stopped it."""
    from cluster.sweep_tune import tune_ray  # takes seconds

    sweep.begin()
    with chdir(sweep.folder), stop_requests() as stop, Board(sweep, stop) as board:
        if not all(settled(sweep, run.name) for run in sweep.runs):
            with tune_ray():
                _train(sweep, options, board)
    print(f"written: {sweep.path / PAGE}\ncurves and hyper-parameters: tensorboard --logdir {sweep.path}")
    if not all(settled(sweep, run.name) for run in sweep.runs):
        print(f"continue with: contrail sweep --resume {sweep.path}")
        return 128 + stop.signal if stop.signal else 1
    return 0


def _train(sweep: SweepFolder, options: SweepOptions, board: Board) -> None:
    """Let all runs come to their end, those of a population from look to look."""
    from cluster.sweep_population import Population
    from cluster.sweep_tune import Halving, fit

    steps, halving, population = max(run.steps for run in sweep.runs), None, None
    if options.scheduler == "asha":
        halving = Halving(sweep, grace=options.grace(steps), reduction=options.reduction)
    elif options.scheduler == "pbt":
        population = Population(sweep, options.look(steps))
    resources = {"CPU": options.cpus, "GPU": options.gpus}
    while True:
        left = population.begin() if population else [run.name for run in sweep.runs if not settled(sweep, run.name)]
        until = population.until if population else 0
        if left:
            fit(
                sweep,
                left,
                parallel=options.at_a_time,
                resources=resources,
                scheduler=halving,
                until=until,
                look=board.look,
            )
        if population is None or sweep.stopping or (taken := population.look()) is None:
            return
        for take in taken:
            board.say(str(take))
