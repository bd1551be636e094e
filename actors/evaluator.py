"""Scores a policy on whole episodes, without favouring short ones."""

import numpy as np

from actors.environments import Environment, Environments, environment_seeds
from actors.episodes import Episode
from actors.policy import Policy

EVALUATOR = 2**32 - 1
"""The actor number of evaluators in the seed tree: no evaluation repeats a training episode."""


def evaluate(
    policy: Policy,
    environment: Environment,
    *,
    episodes: int,
    seed: int,
    count: int,
    max_steps: int,
    greedy: bool = True,
) -> list[Episode]:
    """Exactly this many episodes, in rounds of one episode per environment.

    All environments are reset together and a round ends with its longest episode. Taking episodes as they finish
    instead would favour short ones. The same seed and count give the same starts, whatever the policy.

    Args:
        policy: with its weights loaded.
        environment: made anew, and closed in the end.
        episodes: how many to play.
        seed: of the starts and of the policy's randomness.
        count: environments at once; no more than `episodes` are made.
        max_steps: agent steps after which an episode is cut off, reported as not finished.
        greedy: take the most likely actions.

    Returns:
        In order of rounds, then slots; `stream` is the slot.
    """
    count = min(count, episodes)
    environments = environment.make(count)
    rng = np.random.default_rng([seed, EVALUATOR])
    played: list[Episode] = []
    try:
        while len(played) < episodes:
            seeds = environment_seeds(seed, EVALUATOR, count, incarnation=len(played) // count)
            played += _round(policy, environments, seeds, rng, max_steps=max_steps, greedy=greedy)
    finally:
        environments.close()
    return played[:episodes]


def _round(
    policy: Policy,
    environments: Environments,
    seeds: list[int],
    rng: np.random.Generator,
    *,
    max_steps: int,
    greedy: bool,
) -> list[Episode]:
    """The first episode of every slot after a reset."""
    count = environments.count
    total, length, playing = np.zeros(count), np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_)
    observation, state, first = environments.reset(seeds), policy.initial_state(count), np.ones(count, dtype=np.bool_)
    for _ in range(max_steps):
        columns, state = policy.act(observation, state, first, rng, greedy=greedy)
        step = environments.step(columns["action"])
        total += step.reward * playing
        length += playing
        playing &= ~(step.terminated | step.truncated)
        observation, first = step.observation, step.first
        if not playing.any():
            break
    return [Episode(float(total[i]), int(length[i]), i, finished=not playing[i]) for i in range(count)]
