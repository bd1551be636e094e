"""Contrastive learning's shared arithmetic: scores, InfoNCE, and what a representation's health is read from."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


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


def bilinear(
    query: Float[Tensor, "n F"], key: Float[Tensor, "m G"], weight: Float[Tensor, "F G"]
) -> Float[Tensor, "n m"]:
    """Scores q^T W k of every query with every key."""
    return (query @ weight) @ key.T


def cosine(query: Float[Tensor, "n F"], key: Float[Tensor, "m F"], temperature: float) -> Float[Tensor, "n m"]:
    """Cosine similarities of every query with every key, divided by a temperature."""
    return normalize(query, dim=-1) @ normalize(key, dim=-1).T / temperature


def similarities(
    query: Float[Tensor, "n F"], key: Float[Tensor, "n F"], *, valid: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Cosine similarity of each query with its own key (same row), and its mean with the other valid keys.

    Both near 1: collapsed. Positive near 1 and negative near 0: the keys are told apart.
    """
    query, key = normalize(query, dim=-1), normalize(key, dim=-1)
    key = key * valid.unsqueeze(-1)
    positive = (query * key).sum(-1)
    others = (valid.sum() - valid.to(torch.int64)).clamp(min=1)
    return positive, (query @ key.sum(0) - positive) / others


def embedding_std(z: Float[Tensor, "n F"], *, valid: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Standard deviation over the valid rows, averaged over coordinates; 0 when collapsed to a point."""
    return _covariance(z, valid).diagonal().clamp(min=0).sqrt().mean()


def effective_rank(z: Float[Tensor, "n F"], *, valid: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """How many directions the valid rows spread over: the participation ratio of their covariance.

    (sum of eigenvalues)^2 / (sum of squared eigenvalues): 1 on a line, F when isotropic, 0 when collapsed to a point.
    It needs no eigenvalues (trace and Frobenius norm), so it costs one small matrix product.
    """
    covariance = _covariance(z, valid)
    return covariance.diagonal().sum().square() / covariance.square().sum().clamp(min=1e-30)


def _covariance(z: Tensor, valid: Tensor) -> Tensor:
    weight = valid.to(z.dtype).unsqueeze(-1)
    count = weight.sum().clamp(min=1)
    centred = (z - (z * weight).sum(0) / count) * weight
    return centred.T @ centred / count


def health(
    query: Float[Tensor, "n F"], key: Float[Tensor, "n F"], valid: Bool[Tensor, " n"]
) -> dict[str, Float[Tensor, " n"]]:
    """What tells a learning representation from a collapsed or idle one, per row.

    Args:
        query: embeddings, without gradient.
        key: row i's positive.
        valid: rows that count.

    Returns:
        Cosine similarity to the own key and, on average, to the others'; and of all queries together, the same on each
        row, their spread and effective rank.
    """
    positive, negative = similarities(query, key, valid=valid)
    whole = {"embedding_std": embedding_std(query, valid=valid), "effective_rank": effective_rank(query, valid=valid)}
    metrics = {"positive_similarity": positive, "negative_similarity": negative}
    return metrics | {name: value.expand(len(query)) for name, value in whole.items()}
