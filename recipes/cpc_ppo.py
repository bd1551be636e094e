"""PPO and CPC in one backward pass, on small frames with a recurrent core."""

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import SmallConv
from learners.objective import Objective, Sum
from learners.objectives.cpc import Cpc
from learners.objectives.ppo import PPO
from replay.table import Table


def cpc_ppo(
    env: str = "actors.envs:StaticRecall-v0",
    *,
    steps: int = 100_000,
    envs: int = 64,
    rows: int = 32,
    lr: float = 1e-3,
    epochs: int = 4,
    minibatches: int = 4,
    gamma: float = 0.99,
    lam: float = 0.95,
    clip: float = 0.2,
    entropy: float = 0.01,
    hidden: int = 64,
    contrast: float = 1.0,
    ahead: int = 3,
    seed: int = 1,
    topology: Topology = Topology(),
) -> Experiment:
    """Recurrent PPO and CPC jointly, on small frames (docs/algorithms/cpc.md).

    Args:
        env: a Gymnasium id of an environment with small frames, or "module:Name-v0".
        steps: agent steps to train on.
        envs: environments over all actors.
        rows: of each environment between two learner steps: its decisions, and final observations among them.
        lr: Adam's learning rate.
        epochs: passes over each batch.
        minibatches: optimiser steps per pass, each on whole windows.
        gamma: discount.
        lam: decay of the advantage estimator.
        clip: how far the policy's ratio may leave 1.
        entropy: weight of the entropy bonus.
        hidden: width of the recurrent core's state.
        contrast: weight of the contrastive loss; 0 leaves plain recurrent PPO.
        ahead: how many rows ahead the core must tell what is seen.
        seed: root of every random number.
        topology: where it runs.
    """
    parts: dict[str, tuple[float, Objective]] = {"ppo": (1.0, PPO(clip=clip, entropy=entropy, gamma=gamma, lam=lam))}
    if contrast:
        parts["cpc"] = (contrast, Cpc(steps=ahead))
    gradient = Gradient({"fresh": Sum(parts)}, lr=lr, epochs=epochs, minibatches=minibatches)
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=SmallConv(), core=Gru(hidden)),
        tables={"fresh": Table(batch=envs, window=rows + 1, stride=rows, max_lag=topology.max_version_lag)},
        updates=(gradient,),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
    )
