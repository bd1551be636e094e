"""Playing a run's checkpoint, apart from training."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from actors.episodes import Episode
from actors.evaluator import evaluate as play
from cluster import checkpoints
from cluster.experiment import Experiment, Spaces
from cluster.run_folder import RunFolder
from cluster.whole_file import full_disk_told, replace_text
from learners.policy import ModelPolicy


def evaluate(
    experiment: Experiment,
    folder: RunFolder,
    start: Path,
    *,
    episodes: int | None = None,
    seed: int = 0,
    greedy: bool = True,
) -> dict[str, float]:
    """Play a run's checkpoint; the numbers are also left in the run's `evaluation.json`.

    Args:
        experiment: that of the run.
        folder: of the run.
        start: the checkpoint.
        episodes: how many; None takes the experiment's number.
        seed: of the episodes.
        greedy: the mode of the policy instead of samples.
    """
    policy = load_policy(experiment, Spaces.of(experiment.evaluation or experiment.environment), start)
    played = _played(experiment, policy, episodes=episodes, seed=seed, greedy=greedy)
    return noted(folder, start, played, seed=seed, greedy=greedy)


def episodes_of(experiment: Experiment, version: int, weights: Mapping[str, np.ndarray]) -> list[Episode]:
    """The experiment's greedy episodes with some weights, the same starts each time.

    Args:
        experiment: whose evaluation's environment is made anew, and closed in the end.
        version: of the weights.
        weights: see `weights_of`.
    """
    spaces = Spaces.of(experiment.evaluation or experiment.environment)
    return _played(experiment, _loaded(experiment, spaces, version, weights))


def weights_of(start: Path) -> tuple[int, dict[str, np.ndarray]]:
    """A checkpoint's version, and all of its model by name."""
    tensors, values = checkpoints.read(start)
    own = {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}
    return values["version"], {name: tensor.numpy() for name, tensor in own.items()}


def noted(
    folder: RunFolder, start: Path, played: list[Episode], *, seed: int = 0, greedy: bool = True
) -> dict[str, float]:
    """The numbers of some episodes, which are left in the run's `evaluation.json`, too."""
    values = evaluation_values(played)
    facts = {"checkpoint": start.name, "episodes": len(played), "seed": seed, "greedy": greedy}
    returns = [episode.total for episode in played]
    with full_disk_told(folder.path):
        replace_text(
            folder.path / "evaluation.json", json.dumps(facts | values | {"returns": returns}, indent=1) + "\n"
        )
    return values


def evaluation_values(episodes: list[Episode]) -> dict[str, float]:
    """Mean and spread of evaluation episodes, and how many were cut by the evaluator."""
    totals, lengths = [episode.total for episode in episodes], [episode.length for episode in episodes]
    return {
        "eval/mean_reward": float(np.mean(totals)),
        "eval/std_reward": float(np.std(totals)),
        "eval/mean_ep_length": float(np.mean(lengths)),
        "eval/cut_episodes": float(sum(not episode.finished for episode in episodes)),
    }


def load_policy(experiment: Experiment, spaces: Spaces, folder: Path) -> ModelPolicy:
    """The policy of a checkpoint, ready to act."""
    version, weights = weights_of(folder)
    with checkpoints.fitting(folder):
        return _loaded(experiment, spaces, version, weights)


def _loaded(experiment: Experiment, spaces: Spaces, version: int, weights: Mapping[str, np.ndarray]) -> ModelPolicy:
    policy = spaces.policy(replace(experiment, updates=()))
    policy.load(version, {name: weights[name] for name in policy.model.state_dict()})
    return policy


def _played(
    experiment: Experiment, policy: ModelPolicy, *, episodes: int | None = None, seed: int = 0, greedy: bool = True
) -> list[Episode]:
    episodes = experiment.evaluation_episodes if episodes is None else episodes
    return play(
        policy,
        experiment.evaluation or experiment.environment,
        episodes=episodes,
        seed=seed,
        count=min(episodes, 10),
        max_steps=experiment.evaluation_max_steps,
        greedy=greedy,
    )


def describe_evaluation(values: dict[str, float], experiment: Experiment, *, greedy: bool = True) -> str:
    """One sentence on an evaluation."""
    mean, spread = digits(values["eval/mean_reward"]), digits(values["eval/std_reward"])
    sentence = f"{'greedy' if greedy else 'sampled'} evaluation: mean return {mean} +- {spread}"
    cut = int(values["eval/cut_episodes"])
    if not cut:
        return sentence
    # Breakout is the example: without a shot nothing moves, and the same stack gives the same action again.
    hint = "; the likeliest action can be to wait for ever, see contrail evaluate --sample" if greedy else ""
    return f"{sentence} ({cut} episodes cut at {experiment.evaluation_max_steps} steps{hint})"


def digits(value: float, count: int = 3) -> str:
    """A number with so many significant digits, and all those before the point: 0.0312, 9.50, 1235."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(abs(value))))}f}"
