"""PPO and CURL in one backward pass, on pixels or vectors."""

from typing import Literal

from actors.environments import Environment
from cluster.experiment import Experiment, ExperimentError, Topology
from learners.advantages import Advantages
from learners.augment import Augmentation, GaussianNoise, RandomShift
from learners.gradient import Gradient
from learners.model import ActorCritic, EncoderSpec
from learners.nets.encoders import Mlp, Nature, SmallConv
from learners.objective import Objective, Sum
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.precision import resolved_precision
from learners.update import Average
from replay.table import Table

STACK = 4
ENCODERS: dict[str, tuple[EncoderSpec, int]] = {
    "nature": (Nature(), STACK),
    "small": (SmallConv(), 1),
    "mlp": (Mlp(), 1),
}
"""Encoders by name, with the frames that each one reads at once."""


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
    encoder: Literal["nature", "small", "mlp"] = "nature",
    contrast: float = 0.05,
    shift: int = 4,
    noise: float = 0.1,
    momentum: float = 0.95,
    augment_policy: bool = False,
    history: int = 0,
    fresh_contrast: bool = True,
    exponent: float = 0.0,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    seed: int = 1,
    topology: Topology = Topology(),
) -> Experiment:
    """PPO and CURL jointly, on frames or vectors (docs/algorithms/curl.md).

    Args:
        env: a Gymnasium id, or "module:Name-v0": with frames, or with vectors for the encoder "mlp".
        steps: agent steps to train on; Atari's frames are four times as many.
        envs: environments over all actors.
        rows: of each environment between two learner steps: its decisions, and final observations among them.
        lr: Adam's learning rate.
        epochs: passes over each batch.
        minibatches: optimiser steps per pass.
        clip: how far the policy's ratio may leave 1.
        anneal: learning rate falls linearly to 0.
        encoder: "nature" for Atari's frames, four at once; "small" for small frames, one at once; "mlp" for vectors.
        contrast: weight of the contrastive loss; 0 leaves plain PPO.
        shift: largest random shift of the key's frames, in pixels.
        noise: on the key's vectors, in their standard deviations.
        momentum: of the key encoder, per optimiser step.
        augment_policy: change what PPO sees, too; with contrast 0 this is the crop-only control.
        history: rows of the past that CURL draws as many of as are fresh, in the same backward pass; 0: none.
        fresh_contrast: with a history, contrast the fresh rows, too.
        exponent: draw from the history those rows more often that are told apart worst; 0 draws evenly.
        precision: of the encoder; "auto" takes bf16 where the processor or GPU computes in it.
        seed: root of every random number.
        topology: where it runs.
    """
    if not history and (exponent or not fresh_contrast):
        raise ExperimentError("--exponent and --no-fresh-contrast are about the past: give --history, e.g. 50000")
    network, stack = ENCODERS[encoder]
    change: Augmentation = GaussianNoise(noise) if encoder == "mlp" else RandomShift(shift)
    ppo = PPO(Advantages(reward_clip=1.0 if encoder == "nature" else None), clip, entropy=0.01)
    objectives: dict[str, Objective] = {"fresh": ppo}
    tables = {
        "fresh": Table(batch=envs, window=rows + 1, stride=rows, lead=stack - 1, max_lag=topology.max_version_lag)
    }
    if contrast and fresh_contrast:
        objectives["fresh"] = Sum({"ppo": (1.0, ppo), "curl": (contrast, Curl(augment=change))})
    if contrast and history:
        objectives["history"] = Sum({"curl": (contrast, Curl(augment=change, group="history"))})
        select: Literal["uniform", "prioritised"] = "prioritised" if exponent else "uniform"
        tables["history"] = Table(
            batch=envs * rows // 2, lead=stack - 1, select=select, exponent=exponent, capacity=max(history, envs * rows)
        )
    gradient = Gradient(
        objectives,
        lr=lr,
        anneal=anneal,
        epochs=epochs,
        minibatches=minibatches,
        augment=change if augment_policy else None,
        then=tuple(Average(part, 1 - momentum) for part in ("encoder", "curl.projection")) if contrast else (),
        priorities={"history": "history/loss"} if exponent and "history" in objectives else {},
    )
    return Experiment(
        environment=Environment(env),
        model=ActorCritic(encoder=network, stack=stack, precision=resolved_precision(precision)),
        tables=tables,
        updates=(gradient,),
        envs=envs,
        rows=rows,
        steps=steps,
        seed=seed,
        topology=topology,
        evaluation_max_steps=2_000,
    )
