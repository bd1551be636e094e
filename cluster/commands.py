"""What the commands do."""

import itertools
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import tyro

from cluster.evaluation import describe_evaluation, evaluate
from cluster.evaluations import check_evaluations
from cluster.events import Events, added
from cluster.experiment import Experiment, ExperimentError, Spaces
from cluster.film import FILM, check_film, film
from cluster.mistakes import is_mistake
from cluster.pages import described, session_start
from cluster.parsing import parsed, recorded
from cluster.run import RunOptions, train
from cluster.run_folder import FolderTaken, RunFolder, default_name
from cluster.shipped import describe_recipes
from cluster.trained import chosen, policy_values
from cluster.writers import check_services


def command_train(arguments: list[str]) -> int:
    """contrail train RECIPE [flags]."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: contrail train RECIPE [flags]      (contrail train RECIPE --help lists its flags)\n")
        print(describe_recipes())
        return 0 if arguments else 2
    name, *flags = arguments
    experiment, options, parameters = parsed(name, flags)
    spaces = checked_spaces(experiment)
    if options.film:
        check_film(experiment)
    check_services(options.writers)
    check_evaluations(experiment, options.evaluate_every)
    folder = _new_folder(name, experiment, options)
    told = {"parameters": parameters, "policy": policy_values(experiment, spaces)}
    folder.save_experiment(_description(name, flags, experiment) | told)
    _introduce(folder)
    return _train(experiment, spaces, folder, options, name, resume=False)


def command_resume(arguments: list[str]) -> int:
    """contrail resume RUN."""
    folder = RunFolder.open(tyro.cli(_run_argument, args=arguments, prog="contrail resume"))
    recipe, experiment, options = recorded(folder)
    folder.latest()
    if options.film:
        check_film(experiment)
    return _train(experiment, checked_spaces(experiment), folder, options, recipe, resume=True)


def command_evaluate(arguments: list[str]) -> int:
    """contrail evaluate RUN [flags]."""
    options = tyro.cli(Evaluation, args=arguments, prog="contrail evaluate")
    for name, least in (("episodes", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise ExperimentError(f"--{name} is {getattr(options, name)}, wanted at least {least}")
    folder = RunFolder.open(options.run)
    _, experiment, _ = recorded(folder)
    greedy = not options.sample
    start = chosen(folder, options.checkpoint)
    values = evaluate(experiment, folder, start, episodes=options.episodes, seed=options.seed, greedy=greedy)
    print(describe_evaluation(values, experiment, greedy=greedy))
    if options.film:
        print(_filmed(experiment, folder, start, seed=options.seed, greedy=greedy))
    return 0


def _filmed(experiment: Experiment, folder: RunFolder, start: Path, *, seed: int, greedy: bool) -> str:
    """Film an episode; what there is to say of it."""
    shown, step = film(experiment, folder, start, seed=seed, greedy=greedy), int(start.name)
    with added(folder.path) as events:
        if events is None:
            return f"filmed an episode: {folder.path / FILM}; not for TensorBoard, since the run is being trained"
        events.summary(step, [shown])
    return f"filmed an episode: {folder.path / FILM}, and {shown.tag} among TensorBoard's images"


@dataclass(frozen=True)
class Evaluation:
    """Play a run's newest checkpoint on fresh episodes.

    Attributes:
        run: folder of the run.
        checkpoint: env steps of another one, or "best".
        episodes: how many to play.
        seed: of the episodes.
        sample: sample actions instead of taking the most likely ones.
        film: one more episode, as evaluation.gif and in TensorBoard's images.
    """

    run: tyro.conf.Positional[Path]
    checkpoint: str | None = None
    episodes: int = 10
    seed: int = 0
    sample: bool = False
    film: bool = False


def _run_argument(run: tyro.conf.Positional[Path]) -> Path:
    """Continue a run from its newest checkpoint.

    Args:
        run: folder of the run.
    """
    return run


def checked_spaces(experiment: Experiment) -> Spaces:
    """The environment's spaces, after a look at whether model and machine fit: mistakes show before anything runs."""
    topology, gpus = experiment.topology, torch.cuda.device_count()
    wanted = topology.learners * topology.gpus_per_learner
    if wanted > gpus and not topology.address:
        raise ExperimentError(
            f"{topology.learners} learners with {topology.gpus_per_learner} GPUs each want {wanted}, this machine has "
            f"{gpus}: lower --topology.learners or --topology.gpus-per-learner"
        )
    spaces = Spaces.of(experiment.environment)
    try:
        spaces.schema(experiment)
        with torch.device("meta"):
            spaces.model(experiment, learning=True)
    except Exception as error:
        if is_mistake(error):
            raise
        text = f"no model can be made for {experiment.environment.id}: {type(error).__name__}: {error}"
        raise ExperimentError(text) from error
    return spaces


def _new_folder(recipe: str, experiment: Experiment, options: RunOptions) -> RunFolder:
    """The folder that was asked for, or one of a new name: two runs may begin in the same second."""
    if options.name:
        return RunFolder.create(options.name, runs=options.folder)
    name = default_name(Path(recipe.partition(":")[0]).stem, experiment.environment.id)
    for number in itertools.count(1):
        with suppress(FolderTaken):
            return RunFolder.create(name if number == 1 else f"{name}-{number}", runs=options.folder)
    raise AssertionError("there is always another number")


def _introduce(folder: RunFolder) -> None:
    """What TensorBoard tells of a run before it has numbers."""
    experiment, events = folder.load_experiment(), Events(folder.path)
    events.text("experiment", described(experiment))
    events.summary(0, [session_start(experiment["parameters"])])
    events.close()


def _description(recipe: str, flags: list[str], experiment: Experiment) -> dict[str, Any]:
    """What `experiment.json` holds of the experiment."""
    source = Path(recipe.partition(":")[0])
    # A run is continued from wherever one stands.
    flags = [str(Path(flag).resolve()) if before == "--store" else flag for before, flag in pairwise(["", *flags])]
    return {
        "recipe": f"{source.resolve()}:{recipe.partition(':')[2]}" if source.suffix == ".py" else recipe,
        "arguments": flags,
        "experiment": repr(experiment),
        "seeds": {f"actor-{index}": experiment.seeds(index) for index in range(experiment.topology.actors)},
    }


def _train(
    experiment: Experiment, spaces: Spaces, folder: RunFolder, options: RunOptions, recipe: str, *, resume: bool
) -> int:
    """Exit code 0 when the run came to its end, as shells have it when a signal stopped it."""
    title = f"{recipe} on {experiment.environment.id}, in {folder.path}"
    stopped = train(experiment, spaces, folder, options, title=title, resume=resume)
    if stopped or int(folder.latest().name) < experiment.steps:
        print(f"stopped; continue with: contrail resume {folder.path}")
    elif options.probe:
        from cluster.probe_command import Probing, probe  # takes a moment to import, and few runs want it

        probe(recipe, experiment, folder, Probing(folder.path))
    print(f"curves: tensorboard --logdir {folder.path}")
    return 128 + stopped if stopped else 0
