"""What `contrail probe` does: a run's representation at a glance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

from actors.environments import Environment, EnvironmentFailed
from cluster.evaluation import digits
from cluster.events import added
from cluster.experiment import Experiment, Spaces, at_least
from cluster.parsing import recorded
from cluster.play import rendered
from cluster.probe_scores import Found, scored
from cluster.probing import Rows, collect, raw, representations, shifted, variables
from cluster.projector import write_projector
from cluster.run_folder import RunFolder
from cluster.trained import chosen, description_of, trained_model
from learners.augment import random_shift
from learners.model import Model
from learners.policy import ModelPolicy
from learners.probe import Score, alignment

POINTS = 1_000
"""Of the projector's page, and of what is computed on pairs of rows."""
SHIFT = 4
"""Largest move, in pixels, of the images whose features should stay alike."""
OBSERVATION = "observation"
WIDTH = 120
"""Of the tables, where there is no terminal to fit them to."""


@dataclass(frozen=True)
class Probing:
    """What can be read from a run's representation, beside an untrained one and the observation itself.

    The policy plays, sampling its actions; simple models learn to tell the environment's `info`, the reward to go, the
    action and the step from what the network makes of the rows, and are scored on episodes that they have not seen. The
    numbers go to the run's `probe.json` and TensorBoard pages, under probe/; a sample of the rows becomes a page of
    TensorBoard's projector.

    Attributes:
        run: folder of the run.
        checkpoint: env steps of the one to probe, or "best"; by default the newest.
        steps: agent steps to play.
        envs: environments to play them in, side by side.
        variables: which to read; by default all.
        seed: of the episodes, the split and the untrained network.
        projector: write the projector's page.
        pictures: render environments whose observations are no images, for the page's thumbnails.
    """

    run: tyro.conf.Positional[Path]
    checkpoint: str | None = None
    steps: int = 4_000
    envs: int = 8
    variables: tuple[str, ...] = ()
    seed: int = 0
    projector: bool = True
    pictures: bool = True


def command_probe(arguments: list[str]) -> int:
    """contrail probe RUN [flags]."""
    options = tyro.cli(Probing, args=arguments, prog="contrail probe")
    for name, least in (("steps", 100), ("envs", 1), ("seed", 0)):
        at_least(f"--{name}", getattr(options, name), least)
    folder = RunFolder.open(options.run)
    recipe, experiment, _ = recorded(folder)
    probe(recipe, experiment, folder, options)
    return 0


def probe(recipe: str, experiment: Experiment, folder: RunFolder, options: Probing) -> None:
    """Play, fit, print, and leave the numbers and the projector's page in the run's folder.

    Args:
        recipe: its name, over the tables.
        experiment: of the run.
        folder: of the run, `options.run`.
        options: what to probe, and how.
    """
    start = chosen(folder, options.checkpoint)
    spaces = Spaces.of(experiment.environment)
    model, values = trained_model(experiment, spaces, start)
    rows, places = _played(experiment.environment, model, options)
    untrained = _untrained(experiment, spaces, model, options.seed)
    seen, side = _represented(model, untrained, rows)
    found = scored(rows, seen, experiment.gamma, only=options.variables, seed=options.seed)
    if model.image_columns:
        models = {"encoder": model, "untrained encoder": untrained}
        found.health["alignment, shifted"] = {name: _aligned(each, rows, places) for name, each in models.items()}
    episodes, steps = len(np.unique(rows.episode)), values["steps"]
    print(f"{recipe}, {steps:,} env steps: {int(rows.decided.sum()):,} rows of {episodes:,} episodes of its policy")
    _show(found, side)
    _save(folder, steps, found, options)
    if options.projector:
        _project(folder, steps, rows, seen, places, model)


def _played(environment: Environment, model: Model, options: Probing) -> tuple[Rows, np.ndarray]:
    """Rows, and the places (m, 2), stream and row, of those that stand for all."""
    length = -(-options.steps // options.envs)
    rng = np.random.default_rng(options.seed)
    times = np.sort(rng.permutation(length)[: max(1, POINTS // options.envs)])
    rendering = rendered(environment) if options.projector and options.pictures and not model.image_columns else None
    same: dict[str, Any] = {"streams": options.envs, "length": length, "seed": options.seed}
    try:
        pictured = set(times.tolist()) if rendering else ()
        rows = collect(ModelPolicy(model), rendering or environment, **same, pictured=pictured)
    except EnvironmentFailed as error:
        if rendering is None:
            raise
        print(f"no thumbnails: {error.__cause__ or error}")
        rows = collect(ModelPolicy(model), environment, **same)
    places = np.array([(stream, t) for t in times for stream in range(options.envs) if rows.decided[stream, t]])
    return rows, places


def _untrained(experiment: Experiment, spaces: Spaces, model: Model, seed: int) -> Model:
    """A model of the same shape that has learned nothing but the scale of what comes in."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = description_of(experiment, spaces).build()
    untrained.moments.load_state_dict(model.moments.state_dict())
    return untrained


def _represented(model: Model, untrained: Model, rows: Rows) -> tuple[dict[str, Tensor], int]:
    """All representations of the rows, (n, T, F), and the side of the squares that observations were averaged over."""
    observation, side = raw(model, rows)
    names = {"features": "encoder", "context": "context"}
    trained = {names[name]: value for name, value in representations(model, rows).items()}
    control = {f"untrained {names[name]}": value for name, value in representations(untrained, rows).items()}
    return trained | control | {OBSERVATION: observation}, side


def _aligned(model: Model, rows: Rows, places: np.ndarray) -> float:
    """How alike the features of images and of the same, shifted, are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return alignment(*shifted(model, rows, places, lambda frames: random_shift(frames, SHIFT)))


def _show(found: Found, side: int) -> None:
    """Three tables: what a linear model reads, what the nearest rows tell, how the representations lie."""
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    names = list(next(iter(found.health.values())))
    for how, title in (
        ("linear", "read by a linear model from held-out episodes"),
        ("near", "told by the nearest rows"),
    ):
        grid = _grid(title, ["guess", *names])
        for variable, scores in found.scores.items():
            cells = [_cell(scores[name][how]) for name in names]
            guess = found.guesses.get(variable)
            grid.add_row(variable, "" if guess is None else f"{guess:.2f}", *cells)
        console.print(grid)
    grid = _grid("how rows lie in it", names)
    for measure, values in found.health.items():
        grid.add_row(measure, *[digits(values[name]) if name in values else "" for name in names])
    console.print(grid)
    print("with a guess: share of classes that is right; else R^2; ± half of a 95 % interval over episodes")
    if any(score.low is None for ways in found.scores.values() for each in ways.values() for score in each.values()):
        print("±? where fewer than five episodes were held out, too few to tell: raise --steps")
    if side > 1:
        print(f"observation: averaged over squares of {side} x {side} pixels")
    for name, why in found.left.items():
        print(f"not read: {name}, {why}")


def _grid(title: str, names: Sequence[str]) -> Table:
    grid = Table(title=title, title_justify="left", box=SIMPLE)
    grid.add_column("", no_wrap=True)
    for name in names:
        grid.add_column(name, justify="right", max_width=12)
    return grid


def _cell(score: Score) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.2f} ±?"
    return f"{score.value:.2f} ±{(score.high - score.low) / 2:.2f}"


def _save(folder: RunFolder, steps: int, found: Found, options: Probing) -> None:
    """Leave the numbers in `probe.json` and in TensorBoard."""
    facts = {"steps": steps, "seed": options.seed, "played": options.steps, "envs": options.envs}
    content = json.dumps(facts | asdict(found), indent=1)
    (folder.path / "probe.json").write_text(content + "\n")
    scalars = {
        f"probe/{variable}/{name.replace(' ', '_')}_{how}": score.value
        for variable, scores in found.scores.items()
        for name, ways in scores.items()
        for how, score in ways.items()
    }
    scalars |= {
        f"probe/{measure.replace(' ', '_')}/{name.replace(' ', '_')}": value
        for measure, values in found.health.items()
        for name, value in values.items()
    }
    with added(folder.path) as events:
        if events is None:
            print("the numbers are in probe.json alone; not for TensorBoard, since the run is being trained")
        else:
            events.scalars(steps, scalars)


def _project(
    folder: RunFolder, steps: int, rows: Rows, seen: Mapping[str, Tensor], places: np.ndarray, model: Model
) -> None:
    """The projector's page, of the trained representations."""
    at = (places[:, 0], places[:, 1])
    points = {name: value[at].numpy() for name, value in seen.items() if name in ("encoder", "context")}
    known, _ = variables(rows, 1.0)
    facts = {"stream": at[0], "episode": rows.episode[at] & (2**32 - 1), "reward": rows.reward[at]}
    metadata = {name: list(values) for name, values in facts.items()}
    metadata |= {name: list(variable.values[at]) for name, variable in known.items()}
    if model.image_columns:
        frames = list(rows.observation[model.image_columns[0]][at])
    else:
        frames = [rows.pictures[place] for place in map(tuple, places) if place in rows.pictures]
    write_projector(folder.path, steps, points, metadata, frames if len(frames) == len(places) else ())
    print(
        f"projector: {len(places):,} points{' with thumbnails' if frames else ''}; tensorboard --logdir {folder.path}"
    )
