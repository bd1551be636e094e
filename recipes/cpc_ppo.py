"""PPO and CPC, or TCL, in one backward pass, on small frames, with a recurrent core or without."""

from typing import Literal

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.cores import Gru
from learners.nets.encoders import SmallConv
from learners.nets.transformer import Transformer
from learners.objective import Objective, Sum
from learners.objectives.cpc import Cpc
from learners.objectives.ppo import PPO
from learners.objectives.tcl import tcl
from learners.update import Average
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
    core: Literal["gru", "transformer"] = "gru",
    hidden: int = 64,
    contrast: float = 1.0,
    method: Literal["cpc", "tcl"] = "cpc",
    ahead: int = 3,
    momentum: float = 0.0,
    history: int = 0,
    seed: int = 1,
    topology: Topology = Topology(),
) -> Experiment:
    """PPO and CPC or TCL jointly, on small frames (docs/algorithms/cpc.md).

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
        core: what remembers: a gated recurrent unit, or a causal transformer over the episode's last rows.
        hidden: width of the core; 0: none.
        contrast: weight of the contrastive loss; 0 leaves plain recurrent PPO.
        method: "cpc" predicts from the core's context, "tcl" from a single frame's features.
        ahead: how many rows ahead must be told what is seen.
        momentum: of a slow encoder whose latents are predicted, e.g. .95; 0: the learning one's own.
        history: rows of the past in which as many windows as are fresh are contrasted, too; 0: none.
        seed: root of every random number.
        topology: where it runs.
    """
    ppo = PPO(Advantages(gamma, lam), clip, entropy=entropy)
    make = tcl if method == "tcl" else Cpc
    objectives: dict[str, Objective] = {"fresh": ppo}
    tables = {"fresh": Table(batch=envs, window=rows + 1, stride=rows, max_lag=topology.max_version_lag)}
    if contrast:
        objectives["fresh"] = Sum({"ppo": (1.0, ppo), method: (contrast, make(steps=ahead, momentum=momentum > 0))})
    if contrast and history:
        past = make(steps=ahead, momentum=momentum > 0, group="history")
        objectives["history"] = Sum({method: (contrast, past)})
        windows = max(history // rows, envs)
        tables["history"] = Table(batch=envs, window=rows, stride=rows, select="uniform", capacity=windows)
    slow = dict.fromkeys(part for objective in objectives.values() for part in objective.slow)
    averages = tuple(Average(part, 1 - momentum) for part in slow)
    remembers = Transformer(hidden or 64) if core == "transformer" else Gru(hidden)
    gradient = Gradient(objectives, lr=lr, epochs=epochs, minibatches=minibatches, then=averages)
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=SmallConv(), core=remembers if hidden else None),
        tables=tables,
        updates=(gradient,),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
    )
