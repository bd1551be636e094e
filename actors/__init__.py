"""Actors: environments, policies that act in them, and the rows that come of it."""

from actors.actor import Actor, Report, WeightReader
from actors.environments import Environment, EnvironmentProblem, Environments, Step, environment_seeds
from actors.episodes import Episode, Episodes
from actors.evaluator import evaluate
from actors.policy import Policy, RandomPolicy
from actors.spaces import SpaceError, columns_of, split
from actors.watched import EnvironmentFailed

__all__ = [
    "Actor",
    "Environment",
    "EnvironmentFailed",
    "EnvironmentProblem",
    "Environments",
    "Episode",
    "Episodes",
    "Policy",
    "RandomPolicy",
    "Report",
    "SpaceError",
    "Step",
    "WeightReader",
    "columns_of",
    "environment_seeds",
    "evaluate",
    "split",
]
