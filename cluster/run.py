"""A run from start to end: train, keep checkpoints, evaluate, and leave everything in its folder."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import checkpoints
from cluster.display import Display
from cluster.distributed import Distributed
from cluster.evaluation import describe_evaluation, evaluate
from cluster.experiment import Experiment, Spaces
from cluster.film import film
from cluster.limits import LimitsFile
from cluster.lock import holding
from cluster.metrics import Metrics
from cluster.pages import session_end
from cluster.pulse import Pulse
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
        film: one more episode is played at the end and filmed, for TensorBoard's images; wants the extra `video`.
    """

    name: str = ""
    folder: Path = Path("runs")
    checkpoint_seconds: float = 60.0
    keep: int = 3
    rows: Codec = "lz4"
    rows_gib: float = 4.0
    probe: bool = False
    film: bool = False

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
    with _stop_requests() as stop, _alone(folder), Pulse(folder.path, title=title, of=experiment.steps) as pulse:
        start = folder.latest() if resume else None
        steps = 0 if start is None else checkpoints.read(start)[1]["steps"]
        pulse.goes_on(steps)
        wanted = bytes_wanted(experiment, spaces)
        with (
            segments_folder(
                folder.path, wanted, rows=options.rows, kept_bytes=options.kept_bytes, go_on=resume
            ) as live,
            Metrics(folder.path, resume_step=steps if resume else None) as metrics,
            Display(title, experiment.steps) as display,
        ):
            told = _Told(metrics, display, pulse)
            if steps < experiment.steps:
                places = _places(experiment, folder, live, options, wanted)
                world = _world(experiment, spaces, folder, places, start)
                pulse.follow(world)
                steps = _loop(world, experiment, folder, options, told, stop, steps)
            if steps >= experiment.steps:
                _conclude(experiment, folder, options, told, stop, steps)
        if stop.signal:
            pulse.phase("stopped", f"by {stop.signal.name}")
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
    told: "_Told",
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
                told.learner_step(steps, statistics.add(advance))
                if time.monotonic() - saved > options.checkpoint_seconds:
                    _save(world, folder, steps, options.keep, told.metrics)
                    saved = time.monotonic()
            _save(world, folder, steps, options.keep, told.metrics)
        except Exception as error:
            _rescue(world, folder, steps, error)
            raise
    return steps


def _save(world: World, folder: RunFolder, steps: int, keep: int, metrics: Metrics) -> None:
    world.save(folder.path_for(steps).resolve())
    folder.keep_last(keep)
    world.forget(checkpoints.version(folder.checkpoints()[0]))
    metrics.histograms(steps, world.histograms())


def _rescue(world: World, folder: RunFolder, steps: int, error: Exception) -> None:
    """Save what was learned before an error, and let the error say so."""
    try:
        world.rescue(folder.path_for(steps).resolve())
    except Exception as trouble:  # noqa: BLE001 - why the run ended matters more than why this could not be saved
        error.add_note(f"what came after the last checkpoint is lost: {trouble}")
    if folder.checkpoints():
        error.add_note(f"continue with: contrail resume {folder.path}")


def _conclude(
    experiment: Experiment, folder: RunFolder, options: RunOptions, told: "_Told", stop: "StopRequest", steps: int
) -> None:
    """Greedy episodes after training; a request to stop ends them at once, since nothing can be lost."""
    told.pulse.phase("evaluating")
    if experiment.evaluation_episodes:
        told.display.note(f"playing {experiment.evaluation_episodes} greedy episodes ...")
    try:
        with stop.at_once():
            if experiment.evaluation_episodes:
                values = evaluate(experiment, folder)
                told.metrics.write(steps, values)
                told.display.note(describe_evaluation(values, experiment))
            if options.film:
                told.metrics.summary(steps, film(experiment, folder))
    except KeyboardInterrupt:
        return
    told.metrics.summary(steps, session_end())


@dataclass(frozen=True)
class _Told:
    """All that a run's progress is told to."""

    metrics: Metrics
    display: Display
    pulse: Pulse

    def learner_step(self, steps: int, values: Mapping[str, float]) -> None:
        """Numbers of a learner step that has ended, at so many env steps."""
        self.metrics.write(steps, values)
        self.display.update(steps, values)
        self.pulse.moved(steps, values.get("time/fps"))


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Keep others from continuing the same run meanwhile."""
    with holding(folder.path) as alone:
        if not alone:
            raise RunFolderError(f"{folder.path} is being trained by another process: wait for it, or stop it first")
        yield


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
