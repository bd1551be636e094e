"""CURL: an observation must be recognised in a changed copy of itself (Laskin, Srinivas, Abbeel, arXiv:2004.04136)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn

from learners.augment import Augmentation, RandomShift, augmented
from learners.contrast import PICKING, Scorer, health, info_nce, shuffled
from learners.keys import all_keys, slow_keys
from learners.objective import Batch, Bound, MethodError, Objective, Term

if TYPE_CHECKING:
    from learners.group import Group
    from learners.model import Model
    from learners.output import Output


class CurlHead(nn.Module):
    """What CURL adds to an encoder: a projection (which has a slow copy), and the score's matrix."""

    def __init__(self, inputs: int, features: int, *, matrix: bool) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(inputs, features), nn.LayerNorm(features))
        # The identity over sqrt(features): scores start as scaled dot products, so that pairs are told apart at once.
        # Uniform(0, 1), as in the authors' code, starts 128 features with scores of standard deviation 37.
        # Not `eye`, which on the "meta" device imports a second's worth of modules.
        diagonal = torch.zeros(features, features).fill_diagonal_(features**-0.5)
        self.weight = nn.Parameter(diagonal) if matrix else None


@dataclass(frozen=True)
class Curl(Objective):
    """Contrast of each observation with a changed copy of itself, against all other rows of all learners' minibatches.

    The anchor is the features of the observation as it is, from the forward pass that other objectives share; the key
    is the slow encoder's view of the changed one. Rows with mask 0 are neither anchors nor keys.

    Attributes:
        augment: makes the keys' observations: a shift of images, or noise on vectors.
        both: whether anchors are changed, too, at the price of an encoder pass that nothing shares.
        scorer: how anchors and keys are compared.
        features: width of the projection.
        shuffled: a control, not a method: every row's key is another counted row's, drawn anew each time.
        group: prefix of its metrics' tags. One gradient over two tables needs two.
    """

    slow: ClassVar[tuple[str, ...]] = ("encoder", "curl.projection")
    trains: ClassVar[tuple[str, ...]] = ("encoder",)

    augment: Augmentation = field(default_factory=RandomShift)
    both: bool = False
    scorer: Scorer = field(default_factory=Scorer)
    features: int = 128
    shuffled: bool = False
    group: str = "contrast"  # type: ignore[misc]  # a field, where the base has a constant

    def heads(self, model: "Model") -> dict[str, nn.Module]:
        """The projection and the matrix, as "curl".

        Raises:
            MethodError: the observation has nothing that `augment` changes; names its columns.
        """
        if self.augment.images and not model.image_columns:
            raise MethodError(
                f"curl: {self.augment} changes images, and the observation has only {list(model.observation_columns)}: "
                "take augment=GaussianNoise()"
            )
        return {"curl": CurlHead(model.features, self.features, matrix=self.scorer.kind == "bilinear")}

    def prepare(self, model: "Model", batch: Batch, group: "Group") -> Batch:
        """The keys, once per batch."""
        keys = slow_keys(model, self.changed(model, batch), model.slow("curl.projection"))
        return {"curl_key": keys.unflatten(0, batch["mask"].shape)}

    def terms(self, model: "Model", out: "Output", batch: Batch) -> dict[str, Term]:
        """The loss, and the metrics that tell a learning representation from a collapsed or idle one."""
        head = cast(CurlHead, model.heads["curl"])
        features = model.encode(self.changed(model, batch)) if self.both else out.features.flatten(0, 1)
        query, key = head.projection(features), batch["curl_key"].flatten(0, 1)
        valid = batch["mask"].flatten() > 0
        keys = all_keys(model, batch["curl_key"], batch["mask"])
        rows = shuffled(keys.own.flatten(), valid) if self.shuffled else keys.own.flatten()
        scores = self.scorer(query, keys.key.flatten(0, 1), head.weight)
        loss, correct = info_nce(scores, rows, valid=keys.valid.flatten())
        metrics = {"accuracy": correct, "information": keys.valid.sum().clamp(min=1).log() - loss.detach()}
        metrics |= health(query.detach(), key, valid, total=model.group.sum)
        shape = batch["mask"].shape
        terms = {"loss": Term(loss.view(shape), batch["mask"])}
        return terms | {name: Term(value.view(shape), batch["mask"], 0.0) for name, value in metrics.items()}

    def bounds(self, model: "Model") -> dict[str, Bound]:
        """Those of picking one key out of many."""
        return PICKING

    def changed(self, model: "Model", batch: Batch) -> dict[str, Tensor]:
        """The observation's columns (n, ...), changed by `augment`."""
        columns = {name: column.flatten(0, 1) for name, column in model.observation(batch).items()}
        return columns | augmented(self.augment, columns, model.image_columns)
