"""The run that is put to the test: `contrail train benchmarks/chaos/workload.py:workload`."""

from dataclasses import replace

from actors.environments import Environment
from benchmarks.chaos.environment import ID
from cluster.experiment import Experiment, Topology
from recipes.ppo import ppo


def workload(
    *,
    steps: int = 20_000,
    envs: int = 8,
    rows: int = 32,
    pace: float = 0.0,
    trap: str = "",
    seed: int = 1,
    topology: Topology = Topology(actors=2, learners=2, max_version_lag=1),
) -> Experiment:
    """PPO on CartPole, at a pace that is known and with a trap.

    Args:
        steps: agent steps to train on.
        envs: environments over all actors.
        rows: of each environment between two learner steps.
        pace: seconds that a step of an environment takes at least.
        trap: a file; the first environment that finds it removes it and raises.
        seed: root of every random number.
        topology: where it runs.
    """
    experiment = ppo(steps=steps, envs=envs, rows=rows, seed=seed, topology=topology)
    environment = Environment(ID, {"pace": pace, "trap": trap})
    return replace(experiment, environment=environment, evaluation_episodes=0)
