"""A run from start to end: train, keep checkpoints, evaluate, and leave everything in its folder."""

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster import checkpoints
from cluster.display import Display
from cluster.distributed import Distributed
from cluster.evaluation import describe_evaluation, evaluate
from cluster.experiment import Experiment, Spaces
from cluster.limits import LimitsFile
from cluster.lock import holding
from cluster.metrics import Metrics
from cluster.run_folder import RunFolder, RunFolderError
from cluster.segments_folder import bytes_wanted, segments_folder
from cluster.statistics import Statistics
from cluster.world import Local, World
from replay.archive import Codec
from replay.opening import Places, log_of, next_start, prepare_restart


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept, whatever it trains.

    Attributes:
        name: folder of the run under `folder`; empty makes one from the recipe, the environment and the time.
        folder: where runs are kept.
        checkpoint_seconds: between checkpoints; there is always one at the end.
        keep: newest checkpoints that are kept.
        rows: how the rows that actors saw are kept in the run's folder, for `contrail query` and whoever reads Arrow
            files: compressed with lz4 or zstd. none: not at all.
        rows_gib: of them that are kept; beyond it the oldest leave.
        probe: at the end, tell what can be read from the representation, as `contrail probe` does.
    """

    name: str = ""
    folder: Path = Path("runs")
    checkpoint_seconds: float = 60.0
    keep: int = 3
    rows: Codec = "lz4"
    rows_gib: float = 4.0
    probe: bool = False

    @property
    def kept_bytes(self) -> int:
        """Bytes of rows that are kept."""
        return int(self.rows_gib * 2**30)


def train(
    experiment: Experiment,
    spaces: Spaces,
    folder: RunFolder,
    options: RunOptions,
    *,
    title: str,
    resume: bool = False,
) -> signal.Signals | None:
    """Train an experiment in a run folder.

    Ctrl-C and SIGTERM end it in order: the learner step in progress is finished and saved, so that `resume` continues.
    So does an error, as far as the finished steps can be saved; it is kept in the run's logs.

    Args:
        experiment: checked.
        spaces: of its environment.
        folder: made for it, or that of the run to be resumed.
        options: how it is kept.
        title: over the display.
        resume: continue from the newest checkpoint.

    Returns:
        The signal that stopped it; None: it came to its end.
    """
    with _stop_requests() as stop, _alone(folder), _kept_failures(folder):
        start = folder.latest() if resume else None
        steps = 0 if start is None else checkpoints.read(start)[1]["steps"]
        wanted = bytes_wanted(experiment, spaces)
        with (
            segments_folder(
                folder.path, wanted, rows=options.rows, kept_bytes=options.kept_bytes, go_on=resume
            ) as live,
            Metrics(folder.path, resume_step=steps if resume else None) as metrics,
            Display(title, experiment.steps) as display,
        ):
            if steps < experiment.steps:
                places = _places(experiment, folder, live, options, wanted)
                world = _world(experiment, spaces, folder, places, start)
                steps = _loop(world, experiment, folder, options, metrics, display, stop, steps)
            if steps >= experiment.steps and experiment.evaluation_episodes:
                _evaluate_at_end(experiment, folder, metrics, display, stop, steps)
        return stop.signal


def _places(experiment: Experiment, folder: RunFolder, live: Path, options: RunOptions, wanted: int) -> Places:
    """Where the store's files of this start go."""
    kept = folder.path.resolve() / "replay"
    return Places(
        live=live.resolve(),
        kept=kept,
        start=next_start(kept),
        rows=options.rows,
        kept_bytes=options.kept_bytes,
        live_bytes=2 * wanted,
        given=log_of(Path(experiment.store)).resolve() if experiment.store else None,
    )


def _world(experiment: Experiment, spaces: Spaces, folder: RunFolder, places: Places, start: Path | None) -> World:
    if start is not None:
        version, shards = checkpoints.read(start)[1]["version"], experiment.topology.shards
        prepare_restart(experiment.tables, places, shards=shards, seed=experiment.seed, version=version)
    if experiment.topology.local:
        return Local(experiment, spaces, places=places, resume=start)
    return Distributed(experiment, spaces, places=places, logs=folder.path.resolve() / "logs", resume=start)


def _loop(
    world: World,
    experiment: Experiment,
    folder: RunFolder,
    options: RunOptions,
    metrics: Metrics,
    display: Display,
    stop: "StopRequest",
    steps: int,
) -> int:
    """Learner steps until the experiment's env steps are trained on, or somebody asks to stop; the env steps then."""
    statistics, saved, limits = Statistics(), time.monotonic(), LimitsFile(folder)
    with world:
        try:
            while steps < experiment.steps and not stop.signal:
                if changed := limits.changed():
                    world.limit(changed)
                advance = world.advance()
                steps = advance.steps
                values = statistics.add(advance)
                metrics.write(steps, values)
                display.update(steps, values)
                if time.monotonic() - saved > options.checkpoint_seconds:
                    _save(world, folder, steps, options.keep, metrics)
                    saved = time.monotonic()
            _save(world, folder, steps, options.keep, metrics)
        except Exception as error:
            _rescue(world, folder, steps, error)
            raise
    return steps


def _save(world: World, folder: RunFolder, steps: int, keep: int, metrics: Metrics) -> None:
    world.save(folder.path_for(steps).resolve())
    folder.keep_last(keep)
    world.forget(checkpoints.version(folder.checkpoints()[0]))
    metrics.histograms(steps, {f"replay/{name}": value for name, value in world.histograms().items()})


def _rescue(world: World, folder: RunFolder, steps: int, error: Exception) -> None:
    """Save what was learned before an error, and let the error say so."""
    try:
        world.rescue(folder.path_for(steps).resolve())
    except Exception as trouble:  # noqa: BLE001 - why the run ended matters more than why this could not be saved
        error.add_note(f"what came after the last checkpoint is lost: {trouble}")
    if folder.checkpoints():
        error.add_note(f"continue with: contrail resume {folder.path}")


def _evaluate_at_end(
    experiment: Experiment, folder: RunFolder, metrics: Metrics, display: Display, stop: "StopRequest", steps: int
) -> None:
    """Greedy episodes after training; a request to stop ends them at once, since nothing can be lost."""
    display.note(f"playing {experiment.evaluation_episodes} greedy episodes ...")
    try:
        with stop.at_once():
            values = evaluate(experiment, folder)
    except KeyboardInterrupt:
        return
    metrics.write(steps, values)
    display.note(describe_evaluation(values, experiment))


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Keep others from continuing the same run meanwhile."""
    with holding(folder.path) as alone:
        if not alone:
            raise RunFolderError(f"{folder.path} is being trained by another process: wait for it, or stop it first")
        yield


@contextmanager
def _kept_failures(folder: RunFolder) -> Iterator[None]:
    """Keep whatever ends the run in its logs, traceback and all."""
    try:
        yield
    except Exception as error:
        path = folder.path / "logs" / "failure.log"
        with suppress(OSError), open(path, "a") as file:  # on a full disk the error itself is what matters
            traceback.print_exc(file=file)
            error.add_note(f"traceback: {path}")
        raise


class StopRequest:
    """Whether somebody asked the run to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._at_once = False

    def ask(self, number: int, frame: object) -> None:
        """Take note of a signal; a second one interrupts whatever is going on."""
        again, self.signal = self.signal is not None, signal.Signals(number)
        if again or self._at_once:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where nothing can be lost: the first request interrupts, too."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


@contextmanager
def _stop_requests() -> Iterator[StopRequest]:
    """Ctrl-C, SIGTERM and a closed terminal ask the run to stop."""
    request = StopRequest()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup wants it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request.ask) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
