"""A run from start to end: train, keep checkpoints, evaluate, and leave everything in its folder."""

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cluster import checkpoint_request, checkpoints
from cluster.condition import UNTIL
from cluster.display import Display
from cluster.evaluations import Evaluations
from cluster.experiment import Experiment, Spaces
from cluster.film import film
from cluster.limits import LimitsFile
from cluster.lock import holding
from cluster.metrics import Metrics
from cluster.pages import session_end
from cluster.pulse import Pulse
from cluster.ray_gauges import RayGauges
from cluster.run_folder import RunFolder, RunFolderError
from cluster.scaling import Scaling, laid_out
from cluster.segments_folder import bytes_wanted, segments_folder
from cluster.statistics import Statistics
from cluster.stop import StoppedWaiting, StopRequest, stop_requests
from cluster.world import Local, ProcessDied, World
from cluster.writers import Elsewhere, Service
from replay.archive import Codec
from replay.opening import Places, log_of, next_start, prepare_restart


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept, whatever it trains.

    Attributes:
        name: folder of the run under `folder`; empty makes one from the recipe, the environment and the time.
        folder: where runs are kept.
        checkpoint_seconds: between checkpoints; there is always one at the end.
        keep: newest checkpoints that are kept, beside the one that played best.
        evaluate_every: env steps between evaluations while it trains, each with a checkpoint of its own; 0: only at
            the end.
        rows: how the rows that actors saw are kept in the run's folder, for `contrail query` and whoever reads Arrow
            files: compressed with lz4 or zstd. none: not at all.
        rows_gib: of them that are kept; beyond it the oldest leave.
        probe: at the end, tell what can be read from the representation, as `contrail probe` does.
        film: one more episode is played at the end and filmed, for TensorBoard's images; wants the extra `video`.
        writers: services that are sent the numbers, too; each wants the extra of its name.
        until: env steps at which the run stops once, with a checkpoint; resumed from there it goes on to its end. 0: it
            does not stop.
    """

    name: str = ""
    folder: Path = Path("runs")
    checkpoint_seconds: float = 60.0
    keep: int = 3
    evaluate_every: int = 0
    rows: Codec = "lz4"
    rows_gib: float = 4.0
    probe: bool = False
    film: bool = False
    writers: tuple[Service, ...] = ()
    until: int = 0

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
    So does an error, as far as the finished steps can be saved; it is kept in the run's logs. Where processes died for
    which no others could take over, all begins again from the newest checkpoint, unless nothing was learned since the
    last time.

    Args:
        experiment: checked.
        spaces: of its environment.
        folder: made for it, or that of the run to be resumed.
        options: how it is kept.
        title: over the display.
        resume: continue from the newest checkpoint.

    Returns:
        The signal that stopped it; None: it came to its end, or to where it was to stop.
    """
    with stop_requests() as stop, _alone(folder), Pulse(folder.path, title=title, of=experiment.steps) as pulse:
        while True:
            run = _Run(laid_out(experiment, folder), spaces, folder, options, title, stop, pulse)
            before = folder.checkpoints()[-1:] if resume else []
            try:
                run.start(resume=resume)
                break
            except ProcessDied as death:
                if not death.begin_again or stop.signal or folder.checkpoints()[-1:] in ([], before):
                    raise
                print(f"contrail: {death}; all begins again from {folder.latest()}", file=sys.stderr)
                resume = True
        if stop.signal:
            pulse.phase("stopped", f"by {stop.signal.name}")
        return stop.signal


@dataclass(frozen=True)
class _Run:
    """One run, from start to start."""

    experiment: Experiment
    spaces: Spaces
    folder: RunFolder
    options: RunOptions
    title: str
    stop: StopRequest
    pulse: Pulse

    def start(self, *, resume: bool) -> None:
        """Train until the end, or until somebody asks to stop, and conclude."""
        experiment, folder, options = self.experiment, self.folder, self.options
        begin = folder.latest() if resume else None
        steps = 0 if begin is None else checkpoints.read(begin)[1]["steps"]
        self.pulse.goes_on(steps)
        wanted = bytes_wanted(experiment, self.spaces)
        with (
            segments_folder(
                folder.path, wanted, rows=options.rows, kept_bytes=options.kept_bytes, go_on=resume
            ) as live,
            Metrics(folder.path, resume_step=steps if resume else None) as metrics,
            Display(self.title, experiment.steps) as display,
            Elsewhere(display.note) as elsewhere,
        ):
            for service in options.writers:
                elsewhere.start(service, folder, resume=resume)
            if experiment.topology.address and not experiment.topology.local:
                elsewhere.add("Ray's metrics", RayGauges(folder.path.name))
            every, say = options.evaluate_every, display.note
            scaling = Scaling(folder, experiment.topology.actors, say)
            told = _Told(metrics, display, self.pulse, elsewhere, self.stop, scaling)
            evaluations = Evaluations(experiment, folder, every, write=told.write, say=say, stop=self.stop)
            if steps < experiment.steps:
                world = self._world(self._places(live, wanted), begin, told)
                self.pulse.follow(world)
                steps = self._loop(world, told, evaluations, steps)
            if steps >= experiment.steps:
                self._conclude(told, evaluations, steps)
            elif not self.stop.signal:
                self.pulse.phase("stopped", f"at {UNTIL} {options.until}")

    def _places(self, live: Path, wanted: int) -> Places:
        """Where the store's files of this start go."""
        kept, store = self.folder.path.resolve() / "replay", self.experiment.store
        return Places(
            live=live.resolve(),
            kept=kept,
            start=next_start(kept),
            rows=self.options.rows,
            kept_bytes=self.options.kept_bytes,
            live_bytes=2 * wanted,
            given=log_of(Path(store)).resolve() if store else None,
        )

    def _world(self, places: Places, begin: Path | None, told: "_Told") -> World:
        experiment, spaces = self.experiment, self.spaces
        if begin is not None:
            version, shards = checkpoints.read(begin)[1]["version"], experiment.topology.shards
            prepare_restart(experiment.tables, places, shards=shards, seed=experiment.seed, version=version)
        if experiment.topology.local:
            return Local(experiment, spaces, places=places, resume=begin, say=told.said)
        from cluster.distributed import Distributed  # and with it Ray, which a run in one process does without

        logs = self.folder.path.resolve() / "logs"
        return Distributed(experiment, spaces, places=places, logs=logs, resume=begin, say=told.said)

    def _loop(self, world: World, told: "_Told", evaluations: Evaluations, steps: int) -> int:
        """Learner steps until the experiment's env steps or `until`, or a request to stop; the env steps then."""
        statistics, saved, limits = Statistics(self.experiment), time.monotonic(), LimitsFile(self.folder)
        asked, end, kept = self.options.until, self.experiment.steps, False
        until = min(asked, end) if steps < asked else end
        with suppress(StoppedWaiting), world:
            try:
                while steps < until and not self.stop.signal:
                    if changed := limits.changed():
                        world.limit(changed)
                    told.scaling.look(world)
                    advance = world.advance()
                    steps = advance.steps
                    told.learner_step(steps, statistics.add(advance), str(statistics.verdict() or ""))
                    due = evaluations.due(steps)
                    late = time.monotonic() - saved > self.options.checkpoint_seconds
                    if kept := due or late or checkpoint_request.wanted(self.folder):
                        self._save(world, steps, told.metrics, spared=evaluations.spared)
                        saved = time.monotonic()
                    if due:
                        evaluations.begin(self.folder.path_for(steps))
                    evaluations.look(world)
                told.scaling.look(world)  # the last step may have brought what was wished
                if not kept:  # what was learned last
                    self._save(world, steps, told.metrics, spared=evaluations.spared)
            except Exception as error:
                self._rescue(world, steps, error)
                raise
        return steps

    def _save(self, world: World, steps: int, metrics: Metrics, *, spared: set[str]) -> None:
        """Write a checkpoint; the store goes on keeping what the newest ones want, not what spared ones would."""
        self.folder.check_there()
        checkpoint_request.taken(self.folder)
        world.save(self.folder.path_for(steps).resolve())
        newest = self.folder.keep_last(self.options.keep, besides=spared)
        world.forget(checkpoints.version(newest[0]))
        metrics.histograms(steps, world.histograms())

    def _rescue(self, world: World, steps: int, error: Exception) -> None:
        """Save what was learned before an error, and let the error say so."""
        refuge = self.folder.refuge(steps)
        try:
            if world.rescue(refuge.resolve()) and refuge != self.folder.path_for(steps):
                error.add_note(f"what came after the last checkpoint is in {refuge}: move it to the others")
        except Exception as trouble:  # noqa: BLE001 - why the run ended matters more than why this could not be saved
            error.add_note(f"what came after the last checkpoint is lost: {trouble}")
        if self.folder.checkpoints():
            error.add_note(f"continue with: contrail resume {self.folder.path}")

    def _conclude(self, told: "_Told", evaluations: Evaluations, steps: int) -> None:
        """Greedy episodes after training; a request to stop ends them at once, since nothing can be lost."""
        experiment = self.experiment
        told.pulse.phase("evaluating")
        try:
            with self.stop.at_once():
                if experiment.evaluation_episodes:
                    evaluations.conclude()
                    self.folder.keep_last(self.options.keep, besides=evaluations.spared)
                if self.options.film:
                    told.metrics.summary(steps, film(experiment, self.folder, self.folder.latest()))
        except KeyboardInterrupt:
            return
        told.metrics.summary(steps, session_end())


@dataclass(frozen=True)
class _Told:
    """All that a run's progress is told to."""

    metrics: Metrics
    display: Display
    pulse: Pulse
    elsewhere: Elsewhere
    stop: StopRequest
    scaling: Scaling

    def write(self, steps: int, values: Mapping[str, float]) -> None:
        """Numbers at so many env steps, for all who keep them."""
        self.metrics.write(steps, values)
        self.elsewhere.scalars(steps, values)

    def said(self, text: str) -> None:
        """A process died, or they wait for a place; the text is empty where that was said already.

        Raises:
            StoppedWaiting: somebody asked to stop.
            ProcessDied: fewer actors will do.
        """
        if text:
            self.display.note(text)
            self.pulse.says(text)
        elif self.stop.signal:
            raise StoppedWaiting
        elif self.scaling.fewer():
            raise ProcessDied("processes find no room, and fewer actors are wanted", begin_again=True)

    def learner_step(self, steps: int, values: Mapping[str, float], verdict: str) -> None:
        """Numbers of a learner step that has ended, at so many env steps, and what limits the run."""
        self.write(steps, values)
        self.display.update(steps, values, verdict)
        self.pulse.moved(steps, values.get("time/fps"), verdict)


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Keep others from continuing the same run meanwhile."""
    with holding(folder.path) as alone:
        if not alone:
            raise RunFolderError(f"{folder.path} is being trained by another process: wait for it, or stop it first")
        yield
