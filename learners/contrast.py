"""Contrastive learning's shared arithmetic: scores, InfoNCE, margins, and a representation's health."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from learners.objective import Bound
from learners.targets import Total, alone

PICKING = {
    "loss": Bound(least=-1e-3, otherwise="a cross-entropy is never negative: terms or masks are wrong"),
    "accuracy": Bound(-1e-3, 1.001, "a share of rows lies between 0 and 1: terms or masks are wrong"),
    "information": Bound(least=0.0, stops=False),  # below 0 is worse than chance: nothing is learned yet, or ever
}
"""Bounds of the metrics of objectives that pick the own key out of others (InfoNCE)."""


def info_nce(
    logits: Float[Tensor, "n m"], positive: Int[Tensor, " n"], *, valid: Bool[Tensor, " m"] | None = None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Cross-entropy of picking each query's own key out of all keys.

    With independent pairs, log m minus the mean loss is a lower bound on their mutual information in nats, and never
    above log m.

    Args:
        logits: score of every query (row) with every key (column).
        positive: column of each query's own key.
        valid: columns that may be compared with; None: all. A query whose own key is not valid has no task: it gets
            0 and 0, and no gradient.

    Returns:
        The loss, and 1 where the own key scores highest (chance: 1/m).

    Reference: van den Oord et al., arXiv:1807.03748, eq. 4.
    """
    if valid is None:
        return cross_entropy(logits, positive, reduction="none"), (logits.argmax(1) == positive).to(logits.dtype)
    # The smallest finite number, not -inf: a row without any valid column must not make NaNs in the backward pass.
    logits = logits.masked_fill(~valid, torch.finfo(logits.dtype).min)
    known = valid[positive]
    loss = torch.where(known, cross_entropy(logits, positive, reduction="none"), 0.0)
    return loss, ((logits.argmax(1) == positive) & known).to(logits.dtype)


def shuffled(positive: Int[Tensor, " n"], among: Bool[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Pairs that mean nothing: the positives of the queries in `among`, handed round at random among these.

    The control of every contrastive claim: the same loss, cost and gradient noise, without what belongs together.
    """
    rows = among.nonzero().flatten()
    permuted = positive.clone()
    permuted[rows] = positive[rows[torch.randperm(len(rows), device=rows.device)]]
    return permuted


def bilinear(
    query: Float[Tensor, "n F"], key: Float[Tensor, "m G"], weight: Float[Tensor, "F G"]
) -> Float[Tensor, "n m"]:
    """Scores q^T W k of every query with every key."""
    return (query @ weight) @ key.T


def cosine(query: Float[Tensor, "n F"], key: Float[Tensor, "m F"], temperature: float) -> Float[Tensor, "n m"]:
    """Cosine similarities of every query with every key, divided by a temperature."""
    return normalize(query, dim=-1) @ normalize(key, dim=-1).T / temperature


def distance(query: Float[Tensor, "n F"], key: Float[Tensor, "m F"], temperature: float) -> Float[Tensor, "n m"]:
    """Negative squared distances (L2) of every query from every key, divided by a temperature."""
    # Without a square root, whose gradient is infinite where a query is its key.
    squares = query.square().sum(1, keepdim=True) + key.square().sum(1)
    return (2 * query @ key.T - squares) / temperature


@dataclass(frozen=True)
class Scorer:
    """How queries are compared with keys; the higher, the more alike.

    Attributes:
        kind: "bilinear", q^T W k with W learned by the objective; "cosine"; "distance", the negative squared one.
        temperature: divides the scores. 1 suits "bilinear", whose W has a scale of its own, 0.1 suits "cosine".
    """

    kind: Literal["bilinear", "cosine", "distance"] = "bilinear"
    temperature: float = 1.0

    def __call__(
        self, query: Float[Tensor, "n F"], key: Float[Tensor, "m G"], weight: Float[Tensor, "F G"] | None = None
    ) -> Float[Tensor, "n m"]:
        """Every query with every key; bilinear without a matrix is the dot product."""
        if self.kind == "cosine":
            return cosine(query, key, self.temperature)
        if self.kind == "distance":
            return distance(query, key, self.temperature)
        return (query @ key.T if weight is None else bilinear(query, key, weight)) / self.temperature


def triplet_margin(
    anchor: Float[Tensor, "n F"], positive: Float[Tensor, "n F"], negative: Float[Tensor, "n F"], margin: float
) -> Float[Tensor, " n"]:
    """How far each triplet is from its negative lying `margin` further off than its positive, in squared distance.

    Exactly `margin` everywhere when collapsed to a point.

    Reference: Schroff et al., arXiv:1503.03832, eq. 3.
    """
    near, far = ((anchor - other).square().sum(1) for other in (positive, negative))
    return (near - far + margin).clamp(min=0)


def pairwise_margin(
    left: Float[Tensor, "n F"], right: Float[Tensor, "n F"], alike: Bool[Tensor, " n"], margin: float
) -> Float[Tensor, " n"]:
    """Half the squared distance of pairs that are alike; half the squared lack of `margin` of those that are not.

    Reference: Hadsell, Chopra, LeCun 2006, "Dimensionality reduction by learning an invariant mapping", eq. 4.
    """
    square = (left - right).square().sum(1)
    # The root's gradient is infinite at 0, where a collapsed representation stands.
    lack = (margin - (square + 1e-12).sqrt()).clamp(min=0)
    return 0.5 * torch.where(alike, square, lack.square())


def similarities(
    query: Float[Tensor, "n F"], key: Float[Tensor, "n F"], *, valid: Bool[Tensor, " n"], total: Total = alone
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Cosine similarity of each query with its own key (same row), and its mean with the other valid keys of all ranks.

    Both near 1: collapsed. Positive near 1 and negative near 0: the keys are told apart.
    """
    query, key = normalize(query, dim=-1), normalize(key, dim=-1)
    key = key * valid.unsqueeze(-1)
    positive = (query * key).sum(-1)
    summed, count = total(torch.cat([key.sum(0), valid.sum().reshape(1)])).tensor_split([-1])
    return positive, (query @ summed - positive) / (count - valid.to(key.dtype)).clamp(min=1)


def embedding_std(z: Float[Tensor, "n F"], *, valid: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Standard deviation over the valid rows, averaged over coordinates; 0 when collapsed to a point."""
    return _spread(_covariance(z, valid, alone))


def effective_rank(z: Float[Tensor, "n F"], *, valid: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """How many directions the valid rows spread over: the participation ratio of their covariance.

    (sum of eigenvalues)^2 / (sum of squared eigenvalues): 1 on a line, F when isotropic, 0 when collapsed to a point.
    It needs no eigenvalues (trace and Frobenius norm), so it costs one small matrix product.
    """
    return _rank(_covariance(z, valid, alone))


def _spread(covariance: Tensor) -> Tensor:
    return covariance.diagonal().clamp(min=0).sqrt().mean()


def _rank(covariance: Tensor) -> Tensor:
    return covariance.diagonal().sum().square() / covariance.square().sum().clamp(min=1e-30)


def _covariance(z: Tensor, valid: Tensor, total: Total) -> Tensor:
    weight = valid.to(z.dtype).unsqueeze(-1)
    sums, count = total(torch.cat([(z * weight).sum(0), weight.sum().reshape(1)])).tensor_split([-1])
    centred = (z - sums / count.clamp(min=1)) * weight
    return total(centred.T @ centred) / count.clamp(min=1)


def health(
    query: Float[Tensor, "n F"], key: Float[Tensor, "n F"], valid: Bool[Tensor, " n"], *, total: Total = alone
) -> dict[str, Float[Tensor, " n"]]:
    """What tells a learning representation from a collapsed or idle one, per row.

    Args:
        query: embeddings, without gradient.
        key: row i's positive.
        valid: rows that count.
        total: sums over ranks.

    Returns:
        Cosine similarity to the own key and, on average, to the others'; and of all queries together, the same on each
        row, their spread and effective rank.
    """
    positive, negative = similarities(query, key, valid=valid, total=total)
    covariance = _covariance(query, valid, total)
    whole = {"embedding_std": _spread(covariance), "effective_rank": _rank(covariance)}
    metrics = {"positive_similarity": positive, "negative_similarity": negative}
    return metrics | {name: value.expand(len(query)) for name, value in whole.items()}
