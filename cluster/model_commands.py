"""What the commands do with a trained policy: export, play, probe."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pyarrow as pa
import tyro
from gymnasium.vector.utils import batch_space

from actors.episodes import Episode
from actors.spaces import split
from cluster.evaluation import digits, load_policy
from cluster.experiment import Experiment, ExperimentError, Spaces, at_least
from cluster.parsing import recorded
from cluster.play import Stage, View, open_stage, play
from cluster.run_folder import RunFolder
from cluster.trained import chosen, description_of, trained_model
from cluster.video import SUFFIXES, write_video
from learners.export import PolicyFormat, Sequence, Verified, export_policy, policy_format_of
from learners.policy import ModelPolicy
from replay.segment import StoreError
from replay.store import Store

RECORDED_ROWS, RECORDED_STREAMS, RECORDED_LENGTH = 4096, 8, 64
"""Rows that are looked at for recorded observations; how many streams of what length are taken from them."""


def is_policy(target: str | None, written: str | None) -> bool:
    """Whether an export is of a policy, by its format or else by its target's suffix."""
    if written is not None:
        return written in get_args(PolicyFormat)
    return target is not None and policy_format_of(Path(target)) is not None


def export_run_policy(run: Path, target: str | None, written: str | None, checkpoint: str | None) -> int:
    """Write a run's policy, verified; see `learners.export`.

    Args:
        run: folder or name of the run.
        target: a new file; None: one in the run's folder, named by its env steps.
        written: the format; None: the target's suffix says.
        checkpoint: env steps of the one to take, or "best"; None: the newest.
    """
    folder = RunFolder.open(run)
    recipe, experiment, _ = recorded(folder)
    start = chosen(folder, checkpoint)
    path = Path(target) if target else folder.path / f"policy-{int(start.name)}.{written}"
    if written not in (None, policy_format_of(path)):
        raise ExperimentError(f"{path} does not end in .{written}: leave out --format, or rename it")
    spaces = Spaces.of(experiment.environment)
    model, values = trained_model(experiment, spaces, start)
    description = description_of(experiment, spaces, recipe=recipe, steps=values["steps"], version=values["version"])
    checks = {"random": list(_random(experiment)), "recorded": list(_recorded(folder, [*spaces.observation]))}
    found = export_policy(description, model.acting_weights(), path, {k: v for k, v in checks.items() if v})
    print(f"{path}: {path.stat().st_size:,} bytes, the policy of {values['steps']:,} env steps")
    print(f"compared with the model: {_described(found)}")
    if path.suffix != ".safetensors" and model.precision != "fp32":
        print(f"it computes in float32, where the run's encoder computes in {model.precision}")
    return 0


def _described(found: dict[str, Verified]) -> str:
    parts = [f"{v.difference:.1e} on {v.rows:,} {name} observations" for name, v in found.items()]
    others = sum(v.other_actions for v in found.values())
    actions = f"{others} ties broken otherwise" if others else "the same greedy actions"
    return f"largest difference {', '.join(parts)}; {actions}"


def _random(experiment: Experiment) -> Iterator[Sequence]:
    """Observations drawn from the observation space, of five environments and of one."""
    made = experiment.environment.make(1)
    space = made.observation_space
    made.close()
    rng = np.random.default_rng(0)
    for rows, count in ((48, 5), (16, 1)):
        batch = batch_space(space, rows * count)
        batch.seed(0)
        columns = split(space, batch.sample())
        for name, value in columns.items():
            if value.dtype.kind == "f":  # bounds may be those of the dtype
                columns[name] = value.clip(-100, 100)
        first = rng.random((rows, count)) < 0.1
        first[0] = True
        yield {name: value.reshape(rows, count, *value.shape[1:]) for name, value in columns.items()}, first


def _recorded(folder: RunFolder, names: list[str]) -> Iterator[Sequence]:
    """Observations of a few streams that the run has kept; none where it kept none."""
    wanted = ["writer", "stream", "row", "step", *names]
    try:
        table = Store.open(folder.path).dataset().head(RECORDED_ROWS, columns=wanted).combine_chunks()
    except StoreError:
        return
    order = [(name, "ascending") for name in ("writer", "stream", "row")]
    table = table.take(pa.compute.sort_indices(table.select(["writer", "stream", "row"]), order))
    columns = {name: _values(table[name]) for name in wanted[1:]}
    ends = np.flatnonzero(np.diff(columns["row"]) != 1) + 1
    for stretch in np.split(np.arange(len(columns["row"])), ends)[:RECORDED_STREAMS]:
        taken = {name: values[stretch[:RECORDED_LENGTH], None] for name, values in columns.items()}
        first = taken["step"] == 0
        first[0] = True
        yield {name: taken[name] for name in names}, cast(np.ndarray, first)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """A column of rows (n, ...) as an array."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return array.to_numpy_ndarray() if isinstance(array, pa.FixedShapeTensorArray) else array.to_numpy()


@dataclass(frozen=True)
class Playing:
    """Play episodes of a run's policy and film them.

    Attributes:
        run: folder of the run.
        output: the film, a new .gif or .mp4 file; by default a .gif in the run's folder.
        checkpoint: env steps of the one to play, or "best"; by default the newest.
        episodes: how many to play.
        sample: sample actions instead of taking the most likely ones.
        seed: of the episodes.
        max_steps: agent steps after which an episode is cut.
        view: what is filmed: what the environment renders, or what the policy observes.
        fps: frames a second; by default what the environment says.
    """

    run: tyro.conf.Positional[Path]
    output: Path | None = None
    checkpoint: str | None = None
    episodes: int = 1
    sample: bool = False
    seed: int = 0
    max_steps: int = 1_000
    view: View = "auto"
    fps: float | None = None


def command_play(arguments: list[str]) -> int:
    """contrail play RUN [flags]."""
    options = tyro.cli(Playing, args=arguments, prog="contrail play")
    for name, least in (("episodes", 1), ("seed", 0), ("max_steps", 1)):
        at_least(f"--{name.replace('_', '-')}", getattr(options, name), least)
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise ExperimentError(f"--fps is {options.fps:g}, wanted more than 0 and at most 1000")
    folder = RunFolder.open(options.run)
    _, experiment, _ = recorded(folder)
    start = chosen(folder, options.checkpoint)
    path = options.output or folder.path / f"play-{int(start.name)}.gif"
    if path.suffix not in SUFFIXES:
        raise ExperimentError(f"--output {path} ends in {path.suffix or 'nothing'}, wanted {' or '.join(SUFFIXES)}")
    if options.output and path.exists():
        raise ExperimentError(f"{path} exists already: give another --output, or remove it")
    environment = experiment.evaluation or experiment.environment
    policy = load_policy(experiment, Spaces.of(environment), start)
    _film(policy, open_stage(environment, options.view), path, options)
    print(f"{path}: {path.stat().st_size:,} bytes, the policy of {int(start.name):,} env steps")
    return 0


def _film(policy: ModelPolicy, stage: Stage, path: Path, options: Playing) -> None:
    totals: list[float] = []

    def told(episode: Episode) -> None:
        totals.append(episode.total)
        cut = "" if episode.finished else f", cut at {options.max_steps:,} (--max-steps)"
        print(f"episode {len(totals)}: return {digits(episode.total)}, {episode.length:,} steps{cut}", flush=True)

    try:
        frames = play(
            policy,
            stage,
            episodes=options.episodes,
            seed=options.seed,
            max_steps=options.max_steps,
            greedy=not options.sample,
            told=told,
        )
        write_video(path, frames, options.fps or stage.fps)
    finally:
        stage.close()
    if len(totals) > 1:
        print(f"mean return {digits(float(np.mean(totals)))} +- {digits(float(np.std(totals)))}")
