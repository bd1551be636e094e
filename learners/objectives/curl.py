"""CURL: an observation must be recognised in a shifted copy of itself (Laskin, Srinivas, Abbeel, arXiv:2004.04136)."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from learners.augment import random_shift
from learners.contrast import bilinear, cosine, health, info_nce
from learners.objective import Batch, MethodError, Objective, Term

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model, Output

KEY_ROWS = 256
"""Rows whose keys are computed at once: more would only take more memory."""


class CurlHead(nn.Module):
    """What CURL adds to an encoder: a projection (which has a slow copy), and the score's matrix."""

    def __init__(self, inputs: int, features: int, *, matrix: bool) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(inputs, features), nn.LayerNorm(features))
        # The identity over sqrt(features): scores start as scaled dot products, so that pairs are told apart at once.
        # Uniform(0, 1), as in the authors' code, starts 128 features with scores of standard deviation 37.
        self.weight = nn.Parameter(torch.eye(features) / math.sqrt(features)) if matrix else None


@dataclass(frozen=True)
class Curl(Objective):
    """Contrast of each observation with a shifted copy of itself, against all other rows of the minibatch.

    The anchor is the features of the frames as they are, from the forward pass that other objectives share; the key is
    the slow encoder's view of the shifted frames. Rows with mask 0 are neither anchors nor keys.

    Attributes:
        scorer: "bilinear", q^T W k with W learned, or "cosine".
        temperature: divides the scores; 1 suits "bilinear", whose W has a scale of its own, 0.1 suits "cosine".
        features: width of the projection.
        pad: largest shift of the key's frames, in pixels.
    """

    group: ClassVar[str] = "contrast"
    slow: ClassVar[tuple[str, ...]] = ("encoder", "curl.projection")
    trains: ClassVar[tuple[str, ...]] = ("encoder",)

    scorer: Literal["bilinear", "cosine"] = "bilinear"
    temperature: float = 1.0
    features: int = 128
    pad: int = 4

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """The projection and the matrix, as "curl".

        Raises:
            MethodError: the observation has no image to shift; names its columns.
        """
        if not model.image_columns:
            raise MethodError(f"curl shifts images, and the observation has only {list(model.observation_columns)}")
        return {"curl": CurlHead(model.features, self.features, matrix=self.scorer == "bilinear")}

    @torch.no_grad()
    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """The keys, once per batch: the slow encoder hardly moves within a learner step.

        With several epochs, a pass of the slow encoder in each would cost a sixth of all learning.
        """
        shape = batch["mask"].shape
        columns = {name: column.flatten(0, 1) for name, column in model.observation(batch).items()}
        pieces = [
            self.keys(model, {name: column[start : start + KEY_ROWS] for name, column in columns.items()})
            for start in range(0, shape.numel(), KEY_ROWS)
        ]
        return {"curl_key": torch.cat(pieces).unflatten(0, shape)}

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """The loss, and the metrics that tell a learning representation from a collapsed or idle one."""
        head = cast(CurlHead, model.heads["curl"])
        query, key = head.projection(out.features.flatten(0, 1)), batch["curl_key"].flatten(0, 1)
        valid = batch["mask"].flatten() > 0
        rows = torch.arange(len(query), device=query.device)
        loss, correct = info_nce(self.scores(query, key, head.weight), rows, valid=valid)
        metrics = {"accuracy": correct, "information": valid.sum().clamp(min=1).log() - loss.detach()}
        metrics |= health(query.detach(), key, valid)
        shape = batch["mask"].shape
        terms = {"loss": Term(loss.view(shape), batch["mask"])}
        return terms | {name: Term(value.view(shape), batch["mask"], 0.0) for name, value in metrics.items()}

    def keys(self, model: "Model", columns: Batch) -> Tensor:
        """The slow projections of the shifted frames: observation columns (n, ...) to (n, features)."""
        shifted = {name: random_shift(columns[name], self.pad) for name in model.image_columns}
        return model.slow("curl.projection")(model.encode(columns | shifted, model.slow("encoder")))

    def scores(self, query: Tensor, key: Tensor, weight: Tensor | None) -> Tensor:
        """Every query with every key, (n, n): bilinear where there is a matrix."""
        if weight is None:
            return cosine(query, key, self.temperature)
        return bilinear(query, key, weight) / self.temperature
