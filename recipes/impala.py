"""An actor-critic whose actors run ahead of the learner, corrected by V-trace."""

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import Mlp
from learners.objectives.vtrace import VTrace
from learners.update import Normalise, Update
from replay.table import Table


def impala(
    env: str = "CartPole-v1",
    *,
    steps: int = 300_000,
    envs: int = 16,
    rows: int = 16,
    lr: float = 2e-3,
    gamma: float = 0.99,
    lam: float = 1.0,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
    entropy: float = 0.0,
    normalise_advantage: bool = False,
    anneal: bool = True,
    normalise: bool = True,
    seed: int = 1,
    topology: Topology = Topology(actors=2, learners=1, max_version_lag=1),
) -> Experiment:
    """V-trace actor-critic on vector observations, with actors that run ahead (docs/algorithms/vtrace.md).

    Args:
        env: a Gymnasium id, or "module:Name-v0".
        steps: agent steps to train on.
        envs: environments over all actors.
        rows: of each environment between two learner steps, each one gradient step.
        lr: Adam's learning rate.
        gamma: discount.
        lam: decay of the corrections over rows; 1 is the paper's.
        rho_clip: bound on the ratio of the policy to the one that acted, in errors and in the policy's gradient.
        c_clip: bound on the ratios that carry errors back over rows.
        entropy: weight of the entropy bonus.
        normalise_advantage: mean 0 and standard deviation 1 over each batch.
        anneal: learning rate falls linearly to 0.
        normalise: divide observations and rewards by running statistics; without, values of a large scale may ruin the
            critic.
        seed: root of every random number.
        topology: where it runs; its max_version_lag says how far actors may run ahead.
    """
    advantages = Advantages(gamma, lam, scale_reward=normalise, normalise=normalise_advantage)
    objective = VTrace(advantages, rho_clip=rho_clip, c_clip=c_clip, entropy=entropy)
    updates: list[Update] = [Gradient({"fresh": objective}, lr=lr, anneal=anneal, epochs=1, minibatches=1)]
    if normalise:
        updates.append(Normalise("fresh"))
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=Mlp(), value_encoder=Mlp(), normalise=normalise),
        # No bound: with several actors, a slow one is behind by more than any may run ahead, and that is corrected.
        tables={"fresh": Table(batch=envs, window=rows + 1, stride=rows)},
        updates=tuple(updates),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
    )
