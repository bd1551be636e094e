"""Playing a run's newest checkpoint, apart from training."""

import json
import math
from dataclasses import replace
from pathlib import Path

from actors.evaluator import evaluate as play
from cluster import checkpoints
from cluster.experiment import Experiment, Spaces
from cluster.run_folder import RunFolder
from cluster.statistics import evaluation_values
from learners.policy import ModelPolicy


def evaluate(
    experiment: Experiment, folder: RunFolder, *, episodes: int | None = None, seed: int = 0, greedy: bool = True
) -> dict[str, float]:
    """Play a run's newest checkpoint; the numbers are also left in the run's `evaluation.json`.

    Args:
        experiment: that of the run.
        folder: with at least one checkpoint.
        episodes: how many; None takes the experiment's number.
        seed: of the episodes.
        greedy: the mode of the policy instead of samples.
    """
    environment = experiment.evaluation or experiment.environment
    start = folder.latest()
    policy = load_policy(experiment, Spaces.of(environment), start)
    episodes = experiment.evaluation_episodes if episodes is None else episodes
    played = play(
        policy,
        environment,
        episodes=episodes,
        seed=seed,
        count=min(episodes, 10),
        max_steps=experiment.evaluation_max_steps,
        greedy=greedy,
    )
    values = evaluation_values(played)
    facts = {"checkpoint": start.name, "episodes": episodes, "seed": seed, "greedy": greedy}
    returns = [episode.total for episode in played]
    content = json.dumps(facts | values | {"returns": returns}, indent=1)
    (folder.path / "evaluation.json").write_text(content + "\n")
    return values


def load_policy(experiment: Experiment, spaces: Spaces, folder: Path) -> ModelPolicy:
    """The policy of a checkpoint, ready to act."""
    tensors, values = checkpoints.read(folder)
    policy = spaces.policy(replace(experiment, updates=()))
    with checkpoints.fitting(folder):
        own = policy.model.state_dict()
        policy.load(values["version"], {name: tensors[f"model/{name}"].numpy() for name in own})
    return policy


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
