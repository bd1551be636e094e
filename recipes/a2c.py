"""A2C on vector observations."""

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import Mlp
from learners.objectives.a2c import A2C
from learners.update import Normalise, Update
from replay.table import Table


def a2c(
    env: str = "CartPole-v1",
    *,
    steps: int = 300_000,
    envs: int = 16,
    rows: int = 16,
    lr: float = 2e-3,
    gamma: float = 0.99,
    lam: float = 0.95,
    entropy: float = 0.0,
    normalise_advantage: bool = True,
    anneal: bool = True,
    normalise: bool = False,
    squashed: bool = False,
    seed: int = 1,
    topology: Topology = Topology(actors=1, learners=1),
) -> Experiment:
    """A2C on vector observations, discrete or continuous actions (docs/algorithms/a2c.md).

    Args:
        env: a Gymnasium id, or "module:Name-v0".
        steps: agent steps to train on.
        envs: environments over all actors.
        rows: of each environment between two learner steps, each one gradient step.
        lr: Adam's learning rate.
        gamma: discount.
        lam: decay of the advantage estimator; 1: n-step returns.
        entropy: weight of the entropy bonus.
        normalise_advantage: mean 0 and standard deviation 1 over each batch.
        anneal: learning rate falls linearly to 0.
        normalise: divide observations and rewards by running statistics (for continuous control).
        squashed: squash continuous actions into their bounds.
        seed: root of every random number.
        topology: where it runs.
    """
    advantages = Advantages(gamma, lam, scale_reward=normalise, normalise=normalise_advantage)
    objective = A2C(advantages, entropy=entropy)
    updates: list[Update] = [Gradient({"fresh": objective}, lr=lr, anneal=anneal, epochs=1, minibatches=1)]
    if normalise:
        updates.append(Normalise("fresh"))
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=Mlp(), value_encoder=Mlp(), normalise=normalise, squashed=squashed),
        tables={"fresh": Table(batch=envs, window=rows + 1, stride=rows, max_lag=topology.max_version_lag)},
        updates=tuple(updates),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
    )
