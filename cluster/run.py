"""A run from start to end: train, keep checkpoints, evaluate, and leave everything in its folder."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from actors.evaluator import evaluate as play
from cluster.display import Display
from cluster.distributed import Distributed
from cluster.experiment import Experiment, Spaces
from cluster.metrics import Metrics
from cluster.run_folder import RunFolder
from cluster.segments_folder import bytes_wanted, make_segments_folder, remove_segments_folder
from cluster.statistics import Statistics, evaluation_values
from cluster.world import Local, World
from learners import checkpoint
from learners.policy import ModelPolicy


@dataclass(frozen=True)
class RunOptions:
    """How a run is kept, whatever it trains.

    Attributes:
        name: folder of the run under `folder`; empty makes one from the recipe, the environment and the time.
        folder: where runs are kept.
        checkpoint_seconds: between checkpoints; there is always one at the end.
        keep: newest checkpoints that are kept.
    """

    name: str = ""
    folder: Path = Path("runs")
    checkpoint_seconds: float = 60.0
    keep: int = 3


def train(
    experiment: Experiment,
    spaces: Spaces,
    folder: RunFolder,
    options: RunOptions,
    *,
    title: str,
    resume: bool = False,
) -> bool:
    """Train an experiment in a run folder.

    Ctrl-C and SIGTERM end it in order: the learner step in progress is finished and saved, so that `resume` continues.

    Args:
        experiment: checked.
        spaces: of its environment.
        folder: made for it, or that of the run to be resumed.
        options: how it is kept.
        title: over the display.
        resume: continue from the newest checkpoint.

    Returns:
        Whether it came to its end, rather than being stopped.
    """
    start = folder.latest() if resume else None
    segments = make_segments_folder(folder.path, bytes_wanted(experiment, spaces))
    try:
        steps = _steps_done(start)
        with (
            Metrics(folder.path, resume_step=steps if resume else None) as metrics,
            Display(title, experiment.steps) as display,
            _stop_requests() as stop,
        ):
            world = _world(experiment, spaces, folder, segments, start)
            finished = _loop(world, experiment, folder, options, metrics, display, stop, steps)
            if finished and experiment.evaluation_episodes:
                display.note(f"playing {experiment.evaluation_episodes} greedy episodes ...")
                values = evaluate(experiment, folder)
                metrics.write(experiment.steps, values)
                display.note(describe_evaluation(values, experiment))
        return finished
    finally:
        remove_segments_folder(folder.path, segments)


def _world(experiment: Experiment, spaces: Spaces, folder: RunFolder, segments: Path, start: Path | None) -> World:
    if experiment.topology.local:
        return Local(experiment, spaces, replay_folder=segments, resume=start)
    return Distributed(
        experiment, spaces, replay_folder=segments.resolve(), logs=folder.path.resolve() / "logs", resume=start
    )


def _steps_done(start: Path | None) -> int:
    return 0 if start is None else int(checkpoint.load(start)[1]["steps"])


def _loop(
    world: World,
    experiment: Experiment,
    folder: RunFolder,
    options: RunOptions,
    metrics: Metrics,
    display: Display,
    stop: "StopRequest",
    steps: int,
) -> bool:
    """Learner steps until the experiment's env steps are trained on, or somebody asks to stop."""
    statistics, saved = Statistics(), time.monotonic()
    with world:
        while steps < experiment.steps and not stop.asked:
            advance = world.advance()
            steps = advance.steps
            values = statistics.add(advance)
            metrics.write(steps, values)
            display.update(steps, values)
            if time.monotonic() - saved > options.checkpoint_seconds:
                _save(world, folder, steps, options.keep)
                saved = time.monotonic()
        _save(world, folder, steps, options.keep)
    return steps >= experiment.steps


def _save(world: World, folder: RunFolder, steps: int, keep: int) -> None:
    world.save(folder.path_for(steps).resolve())
    folder.keep_last(keep)


def evaluate(
    experiment: Experiment, folder: RunFolder, *, episodes: int | None = None, seed: int = 0, greedy: bool = True
) -> dict[str, float]:
    """Play a run's newest checkpoint on episodes of their own, apart from training.

    Args:
        experiment: that of the run.
        folder: with at least one checkpoint.
        episodes: how many; None takes the experiment's number.
        seed: of the episodes.
        greedy: the mode of the policy instead of samples.
    """
    environment = experiment.evaluation or experiment.environment
    policy = load_policy(experiment, Spaces.of(environment), folder.latest())
    episodes = episodes or experiment.evaluation_episodes
    return evaluation_values(
        play(
            policy,
            environment,
            episodes=episodes,
            seed=seed,
            count=min(episodes, 10),
            max_steps=experiment.evaluation_max_steps,
            greedy=greedy,
        )
    )


def load_policy(experiment: Experiment, spaces: Spaces, folder: Path) -> ModelPolicy:
    """The policy of a checkpoint, ready to act."""
    tensors, values = checkpoint.load(folder)
    policy = spaces.policy(replace(experiment, updates=()))
    own = policy.model.state_dict()
    policy.load(values["version"], {name: tensors[f"model/{name}"].numpy() for name in own})
    return policy


def describe_evaluation(values: dict[str, float], experiment: Experiment) -> str:
    """One sentence on an evaluation."""
    sentence = f"greedy evaluation: mean return {values['eval/mean_reward']:.1f} +- {values['eval/std_reward']:.1f}"
    cut = int(values["eval/cut_episodes"])
    return sentence + (f" ({cut} episodes cut at {experiment.evaluation_max_steps} steps)" if cut else "")


@dataclass
class StopRequest:
    """Whether somebody asked the run to stop."""

    asked: bool = False


@contextmanager
def _stop_requests() -> Iterator[StopRequest]:
    """Ctrl-C and SIGTERM ask; a second Ctrl-C interrupts at once."""
    request = StopRequest()

    def ask(number: int, frame: object) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
