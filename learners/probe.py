"""What a representation holds: linear probes and nearest neighbours on held-out episodes, and how it is spread out.

A probe asks how well a variable can be read from a representation by something too weak to compute it. Rows of an
episode resemble each other, so episodes are held out whole. A score says little without its controls: the same probe on
an encoder of the same shape that has learned nothing, and on the observation itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Of the squared coefficients, per row, for features of unit variance; the best on the tuning episodes is taken."""

NEIGHBOURS = 10
DRAWS = 200
"""Times that the held-out episodes are drawn again for an interval."""
FEWEST = 5
"""Held-out episodes below which there is no interval: draws of one would always be the same, and look certain."""


class ProbeError(ValueError):
    """Too little to probe: says what was there and what to do."""


@dataclass(frozen=True)
class Split:
    """Rows by what they are for: three index tensors, no two of which share an episode.

    Attributes:
        fit: to fit on, (n,).
        tune: to choose the penalty on; fitted on, too, once it is chosen.
        held: to score on.
    """

    fit: Int[Tensor, " n"]
    tune: Int[Tensor, " m"]
    held: Int[Tensor, " k"]

    @classmethod
    def by_episode(cls, episode: Int[Tensor, " rows"], *, seed: int = 0) -> "Split":
        """A quarter of the episodes held out, a sixth of the others for tuning, at least one each.

        Args:
            episode: of each row.
            seed: of the draw.

        Raises:
            ProbeError: there are fewer than three episodes.
        """
        episodes = episode.unique()
        count = len(episodes)
        if count < 3:
            raise ProbeError(f"{count} episodes cannot be split in three: play more of them")
        order = episodes[torch.randperm(count, generator=torch.Generator().manual_seed(seed))]
        held = max(1, count // 4)
        tune = max(1, (count - held) // 6)
        parts = (order[held + tune :], order[held : held + tune], order[:held])
        return cls(*[torch.isin(episode, part).nonzero().squeeze(1) for part in parts])

    def where(self, known: Bool[Tensor, " rows"]) -> "Split | None":
        """The same without the other rows; None: that leaves a part empty."""
        parts = [rows[known[rows]] for rows in (self.fit, self.tune, self.held)]
        return Split(*parts) if all(len(part) for part in parts) else None


@dataclass(frozen=True)
class Score:
    """How well held-out rows were predicted.

    Attributes:
        value: of numbers R^2, the share of their variance that is explained (1 is perfect, 0 as good as the mean of the
            rows that were fitted, and it may be worse); of classes the share that is right.
        low: of the interval that 95 % of draws of as many held-out episodes give; None: there are fewer than five.
        high: of it.
    """

    value: float
    low: float | None
    high: float | None


class Probe:
    """Reads variables from one representation, on one split of its rows.

    Args:
        features: the representation, (rows, F).
        split: of the rows.
        episode: of each row, for intervals.
    """

    def __init__(self, features: Float[Tensor, "rows F"], split: Split, episode: Int[Tensor, " rows"]) -> None:
        self.split, self._episode = split, episode[split.held]
        std, mean = torch.std_mean(features[split.fit], 0)
        # A feature that never changes must not become one that explodes on held-out rows.
        self._features = ((features - mean) / std.clamp(min=1e-6)).clamp(-10, 10)

    def scores(self, target: Num[Tensor, " rows"], *, classes: bool) -> dict[str, Score]:
        """How well a variable can be read by a `linear` model, and told from the `near` rows of other episodes.

        The linear model is a logistic regression for classes, a ridge regression for numbers; the nearest rows vote, or
        are averaged.

        Args:
            target: of each row.
            classes: whether it is one of a few whole numbers.
        """
        near, held = target[self._nearest], target[self.split.held]
        if classes:
            predicted = {"linear": self._logistic(target), "near": near.mode(1).values}
        else:
            predicted = {"linear": self._ridge(target), "near": near.mean(1)}
        if classes:
            return {how: self._right(rows, held) for how, rows in predicted.items()}
        mean = target[torch.cat([self.split.fit, self.split.tune])].mean()
        return {how: self._explained(rows, held, mean) for how, rows in predicted.items()}

    def _ridge(self, target: Tensor) -> Tensor:
        """Predictions for the held-out rows."""
        fit, tune, held = self.split.fit, self.split.tune, self.split.held

        def predicted(rows: Tensor, penalty: float, new: Tensor) -> Tensor:
            return ridge(self._features[rows], target[rows], self._features[new], penalty=penalty)

        errors = [(predicted(fit, penalty, tune) - target[tune]).square().mean() for penalty in PENALTIES]
        best = PENALTIES[int(torch.stack(errors).argmin())]
        return predicted(torch.cat([fit, tune]), best, held)

    def _logistic(self, target: Tensor) -> Tensor:
        fit, tune, held = self.split.fit, self.split.tune, self.split.held
        known, index = target.unique(return_inverse=True)

        def logits(rows: Tensor, penalty: float, new: Tensor) -> Tensor:
            x, y, others = self._features[rows], index[rows], self._features[new]
            return logistic(x, y, others, classes=len(known), penalty=penalty)

        losses = [cross_entropy(logits(fit, penalty, tune), index[tune]) for penalty in PENALTIES[:5]]
        best = PENALTIES[int(torch.stack(losses).argmin())]
        return known[logits(torch.cat([fit, tune]), best, held).argmax(1)]

    @cached_property
    def _nearest(self) -> Int[Tensor, "held neighbours"]:
        """Rows of other episodes that are most like each held-out one, by cosine."""
        others = torch.cat([self.split.fit, self.split.tune])
        unit = normalize(self._features, dim=1)
        alike = unit[self.split.held] @ unit[others].T
        return others[alike.topk(min(NEIGHBOURS, len(others)), 1).indices]

    def _explained(self, predicted: Tensor, target: Tensor, mean: Tensor) -> Score:
        error, spread = (predicted - target).double().square(), (target - mean).double().square()
        return self._scored(lambda weight: 1 - (weight @ error) / (weight @ spread).clamp(min=1e-12))

    def _right(self, predicted: Tensor, target: Tensor) -> Score:
        right = (predicted == target).double()
        return self._scored(lambda weight: (weight @ right) / weight.sum())

    def _scored(self, score: Callable[[Tensor], Tensor]) -> Score:
        """The score of the held-out rows, and of draws of their episodes with replacement."""
        number = self._episode.unique(return_inverse=True)[1]
        count, value = int(number.max()) + 1, float(score(torch.ones(len(number), dtype=torch.float64)))
        if count < FEWEST:
            return Score(value, None, None)
        drawn = torch.randint(0, count, (DRAWS, count), generator=torch.Generator().manual_seed(0))
        times = one_hot(drawn, count).sum(1).double()
        scores = torch.stack([score(each[number]) for each in times])
        low, high = scores.quantile(torch.tensor([0.025, 0.975], dtype=scores.dtype)).tolist()
        return Score(value, low, high)


def ridge(
    inputs: Float[Tensor, "n F"], targets: Float[Tensor, " n"], new: Float[Tensor, "m F"], *, penalty: float = 1e-6
) -> Float[Tensor, " m"]:
    """Predictions for new inputs by a linear regression with an intercept and penalised coefficients.

    Args:
        inputs: to fit on.
        targets: of each of them.
        new: to predict for.
        penalty: weight of the squared coefficients, per row that is fitted.
    """
    inputs, targets, mean = inputs.double(), targets.double(), inputs.double().mean(0)
    centred = inputs - mean
    gram = centred.T @ centred
    gram.diagonal().add_(penalty * len(inputs))
    weight = torch.linalg.solve(gram, centred.T @ (targets - targets.mean()))
    return (new.double() - mean) @ weight + targets.mean()


def r_squared(predicted: Float[Tensor, " n"], targets: Float[Tensor, " n"]) -> float:
    """The share of the targets' variance that predictions explain."""
    residual = (predicted - targets).square().sum()
    return float(1 - residual / (targets - targets.mean()).square().sum())


def logistic(
    inputs: Float[Tensor, "n F"],
    classes_of: Int[Tensor, " n"],
    new: Float[Tensor, "m F"],
    *,
    classes: int,
    penalty: float,
) -> Float[Tensor, "m classes"]:
    """Logits of new inputs by a softmax regression with penalised weights, fitted by L-BFGS.

    Args:
        inputs: to fit on.
        classes_of: the class of each, from 0.
        new: to predict for.
        classes: how many there are.
        penalty: half the weight of the squared weights.
    """
    weight = torch.zeros(inputs.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = cross_entropy(inputs @ weight + bias, classes_of) + 0.5 * penalty * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return (new @ weight + bias).detach()


def alignment(first: Float[Tensor, "n F"], second: Float[Tensor, "n F"]) -> float:
    """Mean squared distance of pairs that should be alike, on the unit sphere; 0 is perfect, independent pairs give 2.

    Reference: Wang, Isola, arXiv:2005.10242, eq. 1, with alpha 2.
    """
    return float((normalize(first, dim=1) - normalize(second, dim=1)).square().sum(1).mean())


def uniformity(features: Float[Tensor, "n F"]) -> float:
    """Logarithm of the mean Gaussian potential of all pairs on the unit sphere, with t 2: low where evenly spread.

    0 is a point; evenly spread over a sphere of many dimensions it comes near -4.

    Reference: Wang, Isola, arXiv:2005.10242, eq. 2.
    """
    apart = torch.pdist(normalize(features, dim=1)).square()
    return float(torch.logsumexp(-2 * apart, 0) - torch.log(torch.tensor(float(len(apart)))))
