"""TRPO on pixels, with a contrastive loss that moves the encoder before every step of the policy."""

from typing import Literal

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.advantages import Advantages
from learners.augment import RandomShift
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.objective import Objective, Sum
from learners.objectives.cpc import Cpc
from learners.objectives.curl import Curl
from learners.objectives.trpo import Critic, Surrogate
from learners.trust_region import TrustRegion
from learners.update import Average
from recipes.curl_ppo import ENCODERS
from replay.table import Table


def curl_trpo(
    env: str = "actors.envs:JitterCode-v0",
    *,
    steps: int = 80_000,
    envs: int = 64,
    rows: int = 32,
    max_kl: float = 0.01,
    damping: float = 0.1,
    fisher_every: int = 5,
    lr: float = 1e-3,
    epochs: int = 4,
    minibatches: int = 4,
    gamma: float = 0.99,
    lam: float = 0.95,
    encoder: Literal["small", "nature"] = "small",
    method: Literal["curl", "cpc"] = "curl",
    contrast: float = 0.3,
    shift: int = 3,
    momentum: float = 0.95,
    seed: int = 1,
    topology: Topology = Topology(),
) -> Experiment:
    """TRPO and CURL or CPC, on frames (docs/algorithms/trpo.md).

    Args:
        env: a Gymnasium id of an environment with frames, or "module:Name-v0".
        steps: agent steps to train on; Atari's frames are four times as many.
        envs: environments over all actors.
        rows: of each environment between two learner steps: its decisions, and final observations among them.
        max_kl: bound on the mean KL from the policy that acted, in nats, contrastive steps included.
        damping: added to the Fisher matrix's diagonal.
        fisher_every: products with the Fisher matrix see every so-many-th decision.
        lr: Adam's learning rate, of the critic and the contrastive loss.
        epochs: their passes over each batch.
        minibatches: their optimiser steps per pass.
        gamma: discount.
        lam: decay of the advantage estimator.
        encoder: "small" for small frames, one at once; "nature" for Atari's, four at once, rewards limited to +-1.
        method: "curl" tells frames from shifted others, "cpc" tells what will be seen.
        contrast: weight of the contrastive loss; 0 leaves plain TRPO.
        shift: (curl) largest random shift of the key's frames, in pixels.
        momentum: (curl) of the key encoder, per optimiser step.
        seed: root of every random number.
        topology: where it runs.
    """
    network, stack = ENCODERS[encoder]
    advantages = Advantages(gamma, lam, reward_clip=1.0 if encoder == "nature" else None)
    other: Objective = Curl(augment=RandomShift(shift)) if method == "curl" else Cpc()
    parts: dict[str, tuple[float, Objective]] = {"critic": (0.5, Critic(advantages))}
    if contrast:
        parts[method] = (contrast, other)
    joint = Sum(parts)
    averages = tuple(Average(part, 1 - momentum) for part in joint.slow)
    updates = (
        Gradient({"fresh": joint}, lr=lr, epochs=epochs, minibatches=minibatches, then=averages),
        TrustRegion({"fresh": Surrogate(advantages)}, max_kl=max_kl, damping=damping, fisher_every=fisher_every),
    )
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(network, value_encoder=network, stack=stack, record_distribution=True),
        tables={
            "fresh": Table(batch=envs, window=rows + 1, stride=rows, lead=stack - 1, max_lag=topology.max_version_lag)
        },
        updates=updates,
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        gamma=gamma,
        topology=topology,
        evaluation_max_steps=2_000,
    )
