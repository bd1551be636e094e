"""An episode of an evaluation to look at: a GIF in the run's folder, and in TensorBoard."""

from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary

from cluster.evaluation import load_policy
from cluster.experiment import Experiment, Spaces
from cluster.pages import gif
from cluster.play import open_stage, play
from cluster.run_folder import RunFolder
from cluster.video import write_video
from learners.extras import needed

FILM = "evaluation.gif"
STEPS = 500
"""Agent steps that are filmed at most: the file goes into TensorBoard's events as it is."""


def check_film(experiment: Experiment) -> None:
    """Find out before anything is learned whether its episodes can be filmed.

    Raises:
        ExperimentError: the environment neither renders nor observes images.
        MissingExtra: Pillow is not installed.
    """
    needed("PIL.Image", "a film is written with Pillow", "video")
    open_stage(experiment.evaluation or experiment.environment).close()


def film(
    experiment: Experiment, folder: RunFolder, start: Path, *, seed: int = 0, greedy: bool = True
) -> Summary.Value:
    """One more episode of a run's checkpoint, filmed into `FILM` and as a summary.

    TensorBoard shows one image of a tag and step, so other seeds and sampled actions have tags of their own.

    Args:
        experiment: that of the run.
        folder: of the run.
        start: the checkpoint.
        seed: of the episode; it starts as the first of an evaluation of the same seed in one environment.
        greedy: take the most likely actions.
    """
    environment = experiment.evaluation or experiment.environment
    policy = load_policy(experiment, Spaces.of(environment), start)
    steps, path = min(STEPS, experiment.evaluation_max_steps), folder.path / FILM
    stage = open_stage(environment)
    try:
        frames = play(policy, stage, episodes=1, seed=seed, max_steps=steps, greedy=greedy, told=lambda episode: None)
        write_video(path, frames, stage.fps)
    finally:
        stage.close()
    return gif(f"eval/episode{'' if greedy else '_sampled'}{f'_seed_{seed}' if seed else ''}", path)
