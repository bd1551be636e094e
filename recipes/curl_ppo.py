"""PPO and CURL in one backward pass, on pixels."""

from typing import Literal

from actors.environments import Environment
from cluster.experiment import Experiment, Topology
from learners.augment import RandomShift
from learners.gradient import Gradient
from learners.model import ActorCritic
from learners.nets.encoders import Nature
from learners.objective import Objective, Sum
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.precision import resolved_precision
from learners.update import Average
from replay.table import Table

STACK = 4


def curl_ppo(
    env: str = "ALE/Breakout-v5",
    *,
    steps: int = 220_000,
    envs: int = 32,
    rows: int = 32,
    lr: float = 5e-4,
    epochs: int = 3,
    minibatches: int = 8,
    clip: float = 0.2,
    anneal: bool = False,
    contrast: float = 0.05,
    shift: int = 4,
    momentum: float = 0.95,
    augment_policy: bool = False,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    seed: int = 1,
    topology: Topology = Topology(),
) -> Experiment:
    """PPO and CURL jointly, on the frames of an Atari game (docs/algorithms/curl.md).

    Args:
        env: a Gymnasium id of an environment with frames, or "module:Name-v0".
        steps: agent steps to train on; Atari's frames are four times as many.
        envs: environments over all actors.
        rows: of each environment between two learner steps: its decisions, and final observations among them.
        lr: Adam's learning rate.
        epochs: passes over each batch.
        minibatches: optimiser steps per pass.
        clip: how far the policy's ratio may leave 1.
        anneal: learning rate falls linearly to 0.
        contrast: weight of the contrastive loss; 0 leaves plain PPO.
        shift: largest random shift of the key's frames, in pixels.
        momentum: of the key encoder, per optimiser step.
        augment_policy: shift the frames that PPO sees, too; with contrast 0 this is the crop-only control.
        precision: of the encoder; "auto" takes bf16 where the processor or GPU computes in it.
        seed: root of every random number.
        topology: where it runs.
    """
    ppo = PPO(clip=clip, entropy=0.01, reward_clip=1.0)
    parts: dict[str, tuple[float, Objective]] = {"ppo": (1.0, ppo)}
    averages: tuple[Average, ...] = ()
    if contrast:
        parts["curl"] = (contrast, Curl(pad=shift))
        averages = (Average("encoder", 1 - momentum), Average("curl.projection", 1 - momentum))
    gradient = Gradient(
        {"fresh": Sum(parts)},
        lr=lr,
        anneal=anneal,
        epochs=epochs,
        minibatches=minibatches,
        augment=RandomShift(shift) if augment_policy else None,
        then=averages,
    )
    fresh = Table(batch=envs, window=rows + 1, stride=rows, lead=STACK - 1, max_lag=topology.max_version_lag)
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=Nature(), stack=STACK, precision=resolved_precision(precision)),
        tables={"fresh": fresh},
        updates=(gradient,),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        topology=topology,
        evaluation_max_steps=2_000,
    )
