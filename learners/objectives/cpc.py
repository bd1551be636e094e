"""CPC: the context must tell which observation comes k rows later (van den Oord et al., arXiv:1807.03748)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from learners.contrast import health, info_nce
from learners.nets.heads import orthogonal
from learners.objective import Batch, MethodError, Objective, Term

if TYPE_CHECKING:
    from learners.model import Model, Output


class CpcHead(nn.Module):
    """What CPC adds to an encoder and a core: the latents to be predicted, and one linear predictor per step."""

    def __init__(self, features: int, context: int, latent: int, steps: int) -> None:
        super().__init__()
        self.latent = nn.Linear(features, latent)
        self.predictors = nn.ModuleList(
            orthogonal(nn.Linear(context, latent, bias=False), gain=1.0) for _ in range(steps)
        )


@dataclass(frozen=True)
class Cpc(Objective):
    """Contrast of the context with the latents of the next rows, against those of all decided rows of the minibatch.

    A pair counts where both rows hold decisions of one episode, inside one window. Gradients flow through both sides.

    Attributes:
        steps: how many rows ahead, K; a loss and a predictor for each k from 1 to K. Windows must be longer.
        features: width of the latents; scores are divided by its square root.
    """

    group: ClassVar[str] = "contrast"
    recurrent: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("encoder", "core")

    steps: int = 3
    features: int = 64

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """The latents' layer and the predictors, as "cpc"."""
        return {"cpc": CpcHead(model.features, model.context, self.features, self.steps)}

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """For each k: the loss, weighted 1/K, the accuracy and the bound on the information, in nats.

        Raises:
            MethodError: the windows are too short for `steps`; gives both.
        """
        rows = batch["mask"].shape[1]
        if rows <= self.steps:
            raise MethodError(f"cpc: steps={self.steps} needs windows of at least {self.steps + 1} rows, got {rows}")
        head = cast(CpcHead, model.heads["cpc"])
        latent = head.latent(out.features)
        terms: dict[str, Term] = {}
        for step, predictor in enumerate(head.predictors, start=1):
            terms |= self.step_terms(step, predictor(out.context[:, :-step]), latent, batch)
        return terms | self.metrics(head.predictors[0](out.context[:, :-1]), latent, terms, batch)

    @torch.no_grad()
    def metrics(self, predicted: Tensor, latent: Tensor, terms: Mapping[str, Term], batch: Batch) -> dict[str, Term]:
        """Means over k where all of them count, and the health of the latents next to their predictions one row ahead.

        Args:
            predicted: the latents foreseen for the next row, (B, T-1, features).
            latent: of every row, (B, T, features).
            terms: of all k.
            batch: with `mask` and `episode`.
        """
        every, ahead = (pairs(batch["mask"], batch["episode"], step) for step in (self.steps, 1))
        names = ("loss", "accuracy", "information")
        steps = range(1, self.steps + 1)
        means = {name: torch.stack([terms[f"{name}_{k}"].value.detach() for k in steps]).mean(0) for name in names}
        rows = health(latent[:, 1:].flatten(0, 1), predicted.flatten(0, 1), ahead[:, :-1].flatten() > 0)
        ahead_rows = {name: pad(value.unflatten(0, predicted.shape[:2]), (0, 1)) for name, value in rows.items()}
        return {name: Term(value, every, 0.0) for name, value in means.items()} | {
            name: Term(value, ahead, 0.0) for name, value in ahead_rows.items()
        }

    def step_terms(self, step: int, predicted: Tensor, latent: Tensor, batch: Batch) -> dict[str, Term]:
        """The terms of one k.

        Args:
            step: k.
            predicted: the latents foreseen for row t+k, by every row t that has one, (B, T-k, features).
            latent: of every row, (B, T, features).
            batch: with `mask` and `episode`.
        """
        valid = batch["mask"].flatten() > 0
        positive = torch.arange(valid.numel(), device=valid.device).view(batch["mask"].shape)[:, step:].flatten()
        scores = predicted.flatten(0, 1) @ latent.flatten(0, 1).T / math.sqrt(self.features)
        loss, correct = info_nce(scores, positive, valid=valid)
        information = valid.sum().clamp(min=1).log() - loss.detach()
        mask = pairs(batch["mask"], batch["episode"], step)
        columns = {"loss": loss, "accuracy": correct, "information": information}
        weights = {"loss": 1 / self.steps, "accuracy": 0.0, "information": 0.0}
        return {
            f"{name}_{step}": Term(pad(column.view(len(mask), -1), (0, step)), mask, weights[name])
            for name, column in columns.items()
        }


def pairs(mask: Tensor, episode: Tensor, step: int) -> Tensor:
    """1 where rows t and t+step both hold decisions of the same episode, (B, T); the last `step` rows are 0."""
    together = mask[:, :-step] * mask[:, step:] * (episode[:, :-step] == episode[:, step:])
    return pad(together, (0, step))
