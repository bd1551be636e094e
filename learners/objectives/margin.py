"""Margin losses: rows close in time must be closer in representation than others, by a margin."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from learners.contrast import health, pairwise_margin, triplet_margin
from learners.group import Joined
from learners.objective import Batch, MethodError, Objective, Term

if TYPE_CHECKING:
    from learners.model import Model
    from learners.output import Output


@dataclass(frozen=True)
class Margin(Objective):
    """A row, one of its next rows, and one that is neither near nor after it: a triplet, or two labelled pairs.

    Embeddings lie on the unit sphere, since elsewhere a margin can be kept by growing. Both companions are drawn anew
    in every minibatch. A row counts if both of them hold decisions, the near one in its own episode and window.

    Attributes:
        kind: "triplet", squared distances (Schroff et al., arXiv:1503.03832), or "pairwise" (Hadsell, Chopra, LeCun
            2006).
        margin: .2 suits "triplet", 1 suits "pairwise"; squared distances are at most 4, distances 2.
        near: how many rows later counts as close.
        features: width of the embedding.
        group: prefix of its metrics' tags.
    """

    recurrent: ClassVar[bool] = True
    trains: ClassVar[tuple[str, ...]] = ("encoder",)

    kind: Literal["triplet", "pairwise"] = "triplet"
    margin: float = 0.2
    near: int = 1
    features: int = 64
    group: str = "contrast"  # type: ignore[misc]  # a field, where the base has a constant

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """The layer to the embedding, as "margin"."""
        return {"margin": nn.Linear(model.features, self.features)}

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """The loss; `active`, the share of rows whose loss is above 0; `accuracy`: the near row is the closer one.

        Raises:
            MethodError: the windows are too short for `near`; gives both.
        """
        shape = batch["mask"].shape
        if shape[1] <= self.near:
            raise MethodError(
                f"margin: near={self.near} needs windows of at least {self.near + 1} rows, got {shape[1]}"
            )
        embedded = normalize(model.heads["margin"](out.features.flatten(0, 1)), dim=-1)
        everyone = model.group.rows(embedded)
        positive, negative, counted = companions(batch, self.near, everyone)
        anchor, other = embedded, (embedded[positive], everyone(embedded)[negative])
        loss = self.losses(anchor, *other)
        with torch.no_grad():
            close, far = ((anchor - each).square().sum(1) for each in other)
            metrics = {"active": (loss > 0).float(), "accuracy": (close < far).float()}
            metrics |= health(anchor, other[0], counted, total=model.group.sum)
        mask = counted.float().view(shape)
        return {"loss": Term(loss.view(shape), mask)} | {
            name: Term(value.view(shape), mask, 0.0) for name, value in metrics.items()
        }

    def losses(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Of each row, from embeddings (n, features)."""
        if self.kind == "triplet":
            return triplet_margin(anchor, positive, negative, self.margin)
        alike = torch.ones(len(anchor), dtype=torch.bool, device=anchor.device)
        return pairwise_margin(anchor, positive, alike, self.margin) + pairwise_margin(
            anchor, negative, ~alike, self.margin
        )


def companions(batch: Batch, near: int, everyone: Joined) -> tuple[Tensor, Tensor, Tensor]:
    """For each of n = B * T rows, the number of a row 1 to `near` later and of one that is not near, and what counts.

    Args:
        batch: with `mask`, `episode` and `step`, (B, T).
        near: how many rows later, or before, is close.
        everyone: the rows of all learners.

    Returns:
        positive: rows' numbers, (n,).
        negative: numbers among the rows of all learners, (n,), drawn from all of them.
        counted: where all three rows hold decisions, the positive one in the row's window and episode, and the
            negative one not within `near` rows of it in its episode.
    """
    mask, episode = batch["mask"].flatten() > 0, batch["episode"].flatten()
    rows, length = torch.arange(len(mask), device=mask.device), batch["mask"].shape[1]
    positive = rows + torch.randint(1, near + 1, rows.shape, device=rows.device)
    inside = positive // length == rows // length
    positive = torch.where(inside, positive, rows)
    step = batch["step"].flatten()
    decided, episodes, steps = everyone(torch.stack([mask, episode, step], 1)).unbind(1)
    negative = torch.randint(len(decided), rows.shape, device=rows.device)
    far = (episodes[negative] != episode) | ((steps[negative] - step).abs() > near)
    same = inside & (episode[positive] == episode)
    return positive, negative, same & far & mask & mask[positive] & (decided[negative] > 0)
