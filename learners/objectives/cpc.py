"""CPC: the context must tell which observation comes k rows later (van den Oord et al., arXiv:1807.03748)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from learners.contrast import PICKING, Scorer, health, info_nce, shuffled
from learners.keys import Keys, all_keys, slow_keys
from learners.nets.heads import orthogonal
from learners.objective import Batch, Bound, MethodError, Objective, Term

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model
    from learners.output import Output


class CpcHead(nn.Module):
    """What CPC adds to an encoder and a core: the latents to be predicted, and one linear predictor per step."""

    def __init__(self, features: int, anchor: int, latent: int, steps: int, hidden: int) -> None:
        super().__init__()
        self.latent = nn.Linear(features, latent) if latent else nn.Identity()
        # Zero at first, so that the anchor starts as it is.
        self.residual = _residual(anchor, hidden) if hidden else None
        self.predictors = nn.ModuleList(
            orthogonal(nn.Linear(anchor, latent or features, bias=False), gain=1.0) for _ in range(steps)
        )
        if not latent and anchor == features:
            for predictor in self.predictors:
                with torch.no_grad():  # as `eye_`, which on the "meta" device imports a second's worth of modules
                    cast(nn.Linear, predictor).weight.zero_().fill_diagonal_(1.0)

    def anchored(self, anchor: Tensor) -> Tensor:
        """The anchor, through its residual layers if it has any."""
        return anchor if self.residual is None else anchor + self.residual(anchor)


def _residual(width: int, hidden: int) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
    nn.init.zeros_(cast(nn.Linear, layers[-1]).weight)
    nn.init.zeros_(cast(nn.Linear, layers[-1]).bias)
    return layers


@dataclass(frozen=True)
class Cpc(Objective):
    """Contrast of the context with the latents of the next rows, against those of all decided rows.

    These are the rows of all learners' minibatches together.

    A pair counts where both rows hold decisions of one episode, inside one window. Gradients flow through both sides
    unless `momentum`.

    Attributes:
        steps: how many rows ahead, K; a loss and a predictor for each k from 1 to K. Windows must be longer.
        features: width of the latents; 0: the encoder's own features are what is predicted.
        anchor: what predicts: the "context" of a core, or the "features" of a single observation.
        momentum: predict the latents of a slow copy, once per batch; nothing flows through them.
        hidden: width of a residual layer on the anchor; 0: none.
        scorer: how predictions and latents are compared. Dot products ("bilinear") are divided by the square root of
            the latents' width.
        shuffled: a control, not a method: every row's future is that of another counted row, drawn anew each time.
        group: prefix of its metrics' tags. One gradient over two tables needs two.
    """

    slow: ClassVar[tuple[str, ...]] = ()
    recurrent: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("encoder", "core")

    steps: int = 3
    features: int = 64
    anchor: Literal["context", "features"] = "context"
    momentum: bool = False
    hidden: int = 0
    scorer: Scorer = field(default_factory=Scorer)
    shuffled: bool = False
    group: str = "contrast"  # type: ignore[misc]  # a field, where the base has a constant

    def __post_init__(self) -> None:
        if self.momentum:
            latent = (f"{self.name}.latent",) if self.features else ()
            object.__setattr__(self, "slow", ("encoder", *latent))

    @property
    def name(self) -> str:
        """Of its head: "cpc", or "tcl" where no context is read, so that both fit into one model."""
        return "cpc" if self.anchor == "context" else "tcl"

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """The latents' layer and the predictors."""
        width = model.context if self.anchor == "context" else model.features
        return {self.name: CpcHead(model.features, width, self.features, self.steps, self.hidden)}

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """With `momentum`, the slow latents of all rows, (B, T, features)."""
        if not self.momentum:
            return {}
        columns = {name: column.flatten(0, 1) for name, column in model.observation(batch).items()}
        latent = model.slow(f"{self.name}.latent") if self.features else nn.Identity()
        return {f"{self.name}_key": slow_keys(model, columns, latent).unflatten(0, batch["mask"].shape)}

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """For each k: the loss, weighted 1/K, the accuracy and the bound on the information, in nats.

        Raises:
            MethodError: the windows are too short for `steps`; gives both.
        """
        rows = batch["mask"].shape[1]
        if rows <= self.steps:
            raise MethodError(f"cpc: steps={self.steps} needs windows of at least {self.steps + 1} rows, got {rows}")
        head = cast(CpcHead, model.heads[self.name])
        anchor = head.anchored(out.context if self.anchor == "context" else out.features)
        latent = batch[f"{self.name}_key"] if self.momentum else head.latent(out.features)
        terms: dict[str, Term] = {}
        keys = all_keys(model, latent, batch["mask"])
        for step, predictor in enumerate(head.predictors, start=1):
            terms |= self.step_terms(step, predictor(anchor[:, :-step]), keys, batch)
        return terms | self.metrics(model, head.predictors[0](anchor[:, :-1]), latent, terms, batch)

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """Those of picking one latent out of many."""
        return PICKING

    @torch.no_grad()
    def metrics(
        self, model: "Model", predicted: Tensor, latent: Tensor, terms: Mapping[str, Term], batch: Batch
    ) -> dict[str, Term]:
        """Means over k where all of them count, and the health of the latents next to their predictions one row ahead.

        Args:
            model: among its learners.
            predicted: the latents foreseen for the next row, (B, T-1, features).
            latent: of every row, (B, T, features).
            terms: of all k.
            batch: with `mask` and `episode`.
        """
        every, ahead = (pairs(batch["mask"], batch["episode"], step) for step in (self.steps, 1))
        names = ("loss", "accuracy", "information")
        steps = range(1, self.steps + 1)
        means = {name: torch.stack([terms[f"{name}_{k}"].value.detach() for k in steps]).mean(0) for name in names}
        counted, total = ahead[:, :-1].flatten() > 0, model.group.sum
        rows = health(latent[:, 1:].flatten(0, 1), predicted.flatten(0, 1), counted, total=total)
        ahead_rows = {name: pad(value.unflatten(0, predicted.shape[:2]), (0, 1)) for name, value in rows.items()}
        return {name: Term(value, every, 0.0) for name, value in means.items()} | {
            name: Term(value, ahead, 0.0) for name, value in ahead_rows.items()
        }

    def step_terms(self, step: int, predicted: Tensor, keys: Keys, batch: Batch) -> dict[str, Term]:
        """The terms of one k.

        Args:
            step: k.
            predicted: the latents foreseen for row t+k, by every row t that has one, (B, T-k, features).
            keys: the latents of every row.
            batch: with `mask` and `episode`.
        """
        mask = pairs(batch["mask"], batch["episode"], step)
        positive = keys.own[:, step:].flatten()
        if self.shuffled:
            positive = shuffled(positive, mask[:, :-step].flatten() > 0)
        scores = self.scores(predicted.flatten(0, 1), keys.key.flatten(0, 1))
        loss, correct = info_nce(scores, positive, valid=keys.valid.flatten())
        information = keys.valid.sum().clamp(min=1).log() - loss.detach()
        columns = {"loss": loss, "accuracy": correct, "information": information}
        weights = {"loss": 1 / self.steps, "accuracy": 0.0, "information": 0.0}
        return {
            f"{name}_{step}": Term(pad(column.view(predicted.shape[:2]), (0, step)), mask, weights[name])
            for name, column in columns.items()
        }

    def scores(self, predicted: Tensor, latent: Tensor) -> Tensor:
        """Every prediction with every latent, (n, m)."""
        scores = self.scorer(predicted, latent)
        return scores / math.sqrt(latent.shape[-1]) if self.scorer.kind == "bilinear" else scores


def pairs(mask: Tensor, episode: Tensor, step: int) -> Tensor:
    """1 where rows t and t+step both hold decisions of the same episode, (B, T); the last `step` rows are 0."""
    together = mask[:, :-step] * mask[:, step:] * (episode[:, :-step] == episode[:, step:])
    return pad(together, (0, step))
