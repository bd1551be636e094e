"""PPO on fresh frames, CURL on frames of the past, more often on those that it tells apart worst.

contrail train docs/examples/history.py:history --env ALE/Pong-v5
"""

from dataclasses import replace

from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.update import Average
from recipes.curl_ppo import STACK, curl_ppo
from replay.table import Table


def history(
    env: str = "ALE/Breakout-v5",
    *,
    steps: int = 220_000,
    capacity: int = 50_000,
    exponent: float = 0.6,
    seed: int = 1,
    topology: Topology = Topology(),
) -> Experiment:
    """PPO on fresh frames, CURL on frames of the past by priority.

    Args:
        env: a Gymnasium id of an environment with frames, or "module:Name-v0".
        steps: agent steps to train on.
        capacity: frames of the past.
        exponent: 0 draws them evenly; the higher, the more those that are told apart worst.
        seed: root of every random number.
        topology: where it runs.
    """
    plain = curl_ppo(env, steps=steps, contrast=0, seed=seed, topology=topology)
    past = Table(batch=512, lead=STACK - 1, select="prioritised", exponent=exponent, capacity=capacity)
    gradient = Gradient(
        {"fresh": PPO(Advantages(reward_clip=1.0), entropy=0.01), "past": Curl()},
        lr=5e-4,
        epochs=3,
        minibatches=8,
        then=(Average("encoder", 0.05), Average("curl.projection", 0.05)),
        priorities={"past": "contrast/loss"},
    )
    return replace(plain, tables={**plain.tables, "past": past}, updates=(gradient,))
