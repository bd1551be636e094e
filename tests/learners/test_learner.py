"""What a learner keeps, checks, and continues from."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from learners import checkpoint
from learners.advantages import Advantages
from learners.augment import RandomShift
from learners.checks import OutOfBounds
from learners.gradient import Gradient
from learners.learner import Learner
from learners.not_finite import NotFinite
from learners.objective import Batch, Bound, Objective, Sum, Term
from learners.objectives.curl import Curl
from learners.objectives.ppo import PPO
from learners.precision import Precision
from learners.update import Average, Normalise
from tests.learners.reading import TABLE, RandomRows, learner_of, model_of

SHAPE = (TABLE.batch, TABLE.lead + TABLE.window)
JOINT = Sum({"ppo": (1.0, PPO()), "curl": (0.5, Curl())})
FOLLOW = (Average("encoder"), Average("curl.projection"))


def image_learner(precision: Precision, **options) -> Learner:
    """PPO and CURL on frames: convolutions in channels_last, slow copies, shifts, shuffles."""
    model = model_of(JOINT, images=True, precision=precision)
    gradient = Gradient({"fresh": JOINT}, lr=0.01, epochs=2, minibatches=2, then=FOLLOW, **options)
    return learner_of(model, gradient, rows=RandomRows(images=True))


def vector_learner(**options) -> Learner:
    """PPO with everything normalised."""
    model = model_of(images=False, normalise=True)
    gradient = Gradient({"fresh": PPO(Advantages(scale_reward=True))}, lr=0.01, epochs=2, minibatches=2, **options)
    return learner_of(model, gradient, Normalise("fresh"), rows=RandomRows(images=False))


def copied(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state()[0].items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.parametrize("versions", [[500.0], [500.0, 1_000_000.0]], ids=["newer", "far apart"])
def test_rows_of_another_run_may_be_of_any_version(versions: list[float]) -> None:
    learner, rows = vector_learner(), torch.tensor([versions])
    learner._staleness({"fresh": {"policy_version": rows.long(), "mask": torch.ones_like(rows)}})
    counts, edges = learner.histograms()["staleness/fresh"]
    assert counts.sum() == len(versions) and len(counts) <= 64 and len(edges) == len(counts) + 1
    assert edges[0] <= -max(versions) and edges[-1] >= -min(versions)


@pytest.mark.parametrize("acted", [-np.log(3), -np.log(6), -20.0], ids=["the same policy", "half as likely", "never"])
def test_importance_is_how_much_likelier_the_policy_makes_what_was_done(acted: float) -> None:
    shape = (TABLE.batch, TABLE.lead + TABLE.window)
    rows = RandomRows(images=False, changes={"log_prob": np.full(shape, acted, np.float32)})
    learner = learner_of(model_of(images=False), Gradient({"fresh": PPO()}, lr=0.0, epochs=1, minibatches=1), rows=rows)
    assert learner.histograms() == {}, "nothing was read yet"
    learner.step()
    before = copied(learner)
    counts, edges = learner.histograms()["importance/fresh"]
    assert counts.sum() == rows.read(0)["fresh"]["mask"][:, TABLE.lead :].sum()
    likely = min(10.0, np.exp(-np.log(3) - acted))  # of a fresh policy over three actions, about
    assert 0.8 * likely < edges[0] <= likely * 1.2 and edges[-1] <= max(10.5, likely * 1.2)
    assert not differing(before, copied(learner)), "random numbers among them"


@pytest.mark.parametrize(
    "make",
    [vector_learner, lambda: image_learner("fp32"), lambda: image_learner("bf16")],
    ids=["vectors", "images", "images in bf16"],
)
def test_a_resumed_learner_goes_on_bit_for_bit(make, tmp_path: Path) -> None:
    whole = make()
    torch.manual_seed(3)
    for _ in range(2):
        whole.step()
    checkpoint.save(tmp_path / "a", *whole.state())
    for _ in range(2):
        whole.step()
    torch.manual_seed(4)
    resumed = make()
    resumed.restore(*checkpoint.load(tmp_path / "a"))
    assert resumed.version == 2
    for _ in range(2):
        resumed.step()
    assert differing(copied(whole), copied(resumed)) == []
    assert resumed.steps == whole.steps and resumed.checksum() == whole.checksum()


def test_moments_of_convolutions_come_back_as_they_lay(tmp_path: Path) -> None:
    """The fused optimiser pairs numbers as they lie in memory: a restored moment of another order mixes them up."""
    learner = image_learner("fp32")
    learner.step()
    checkpoint.save(tmp_path / "a", *learner.state())
    resumed = image_learner("fp32")
    resumed.restore(*checkpoint.load(tmp_path / "a"))
    optimiser = resumed.engines[0].optimiser
    pairs = [(own, optimiser.moments[index]) for index, own in enumerate(optimiser.parameters) if own.ndim == 4]
    assert any(not own.is_contiguous() for own, _ in pairs), "no convolution lies in channels_last"
    for own, moments in pairs:
        assert moments.exp_avg.stride() == own.stride()


def test_another_seed_of_the_shuffles_gives_other_weights() -> None:
    """Or the test above would show nothing of random states."""
    results = []
    for seed in (3, 4):
        learner = image_learner("fp32")
        torch.manual_seed(seed)
        learner.step()
        results.append(learner.checksum())
    assert results[0] != results[1]


@pytest.mark.parametrize("column", ["observation", "reward"])
def test_the_minibatch_that_was_no_number_is_kept_and_told(column: str, tmp_path: Path) -> None:
    value = RandomRows(images=False).read(0)["fresh"][column]
    value[:, 4] = np.nan
    before = model_of(images=False).state_dict()
    rows = RandomRows(images=False, changes={column: value, "mask": np.ones(SHAPE, np.uint8)})
    gradient = Gradient({"fresh": PPO()}, minibatches=1)
    learner = learner_of(model_of(images=False), gradient, rows=rows, failures=tmp_path / "failures")
    with pytest.raises(NotFinite) as caught:
        learner.step()
    text, folder = str(caught.value), tmp_path / "failures" / "version-0-learner-0"
    assert "train/policy_gradient_loss" in text and 'of PPO on table "fresh"' in text
    assert f"fresh/{column}" in text and f"in {folder}" in text
    assert not caught.value.evidence, "it would travel through Ray"
    tensors, values = checkpoint.load(folder)
    assert tensors[f"batch/fresh/{column}"].isnan().any() and text.startswith(values["message"])
    assert all(torch.equal(tensors[f"model/{name}"], tensor) for name, tensor in before.items())
    assert learner.version == 0 and rows.published == []


def test_a_parameter_that_was_no_number_before_is_named(tmp_path: Path) -> None:
    model = model_of(images=False)
    with torch.no_grad():
        model.policy.linear.weight[0, 0] = torch.inf
    learner = learner_of(model, Gradient({"fresh": PPO()}), rows=RandomRows(images=False), failures=tmp_path)
    with pytest.raises(
        NotFinite, match=r"Found: parameters policy\.linear\.weight; term train/policy_gradient_loss of"
    ):
        learner.step()


def test_a_failure_that_cannot_be_kept_is_still_told(tmp_path: Path) -> None:
    (tmp_path / "failures").write_text("in the way")
    model = model_of(images=False)
    with torch.no_grad():
        model.value.linear.bias.fill_(torch.nan)
    rows = RandomRows(images=False)
    learner = learner_of(model, Gradient({"fresh": PPO()}), rows=rows, failures=tmp_path / "failures")
    with pytest.raises(NotFinite, match=r"value\.linear\.bias.*could not be kept"):
        learner.step()


OTHER_POLICY = {"log_prob": np.full(SHAPE, -1.5, np.float32)}
"""Log-probabilities of a policy that is not the learner's, which starts nearly uniform over three actions."""


def test_a_policy_that_is_not_the_one_that_acted_stops_the_run() -> None:
    rows = RandomRows(images=False, changes=OTHER_POLICY)
    table = replace(TABLE, max_lag=0)
    learner = learner_of(model_of(images=False), Gradient({"fresh": PPO()}), rows=rows, table=table)
    with pytest.raises(OutOfBounds, match=r"train/first_ratio_error is 0\.\d+, wanted -inf to 0\.001: with the same"):
        learner.step()
    assert rows.published == []


@pytest.mark.parametrize("why", ["rows may be older", "the policy sees other frames", "the policy has moved before"])
def test_where_the_ratio_may_differ_it_does_not_stop(why: str) -> None:
    objective, images = PPO(), why == "the policy sees other frames"
    rows = RandomRows(images=images, changes=OTHER_POLICY)
    table = replace(TABLE, max_lag=1 if why == "rows may be older" else 0)
    gradient = Gradient({"fresh": objective}, augment=RandomShift(1) if images else None)
    before = (Gradient({"fresh": Pull()}),) if why == "the policy has moved before" else ()
    learner = learner_of(model_of(images=images), *before, gradient, rows=rows, table=table)
    assert learner.step()["train/first_ratio_error"] > 0.1


@dataclass(frozen=True)
class Pull(Objective):
    """Pulls the value to 0, and says what it should be like."""

    group: str = "pull"
    most: float = 1e9
    stops: bool = True

    def terms(self, model, out, batch: Batch) -> dict[str, Term]:
        return {"error": Term(out.value.square(), batch["mask"])}

    def bounds(self, model) -> dict[str, Bound]:
        return {"error": Bound(least=0.0, most=self.most, otherwise="nobody knows", stops=self.stops)}


def test_a_bound_stops_the_run_or_warns() -> None:
    def stepped(objective: Objective) -> dict[str, float]:
        return learner_of(model_of(images=False), Gradient({"fresh": objective}), rows=RandomRows(images=False)).step()

    assert "checks/pull_error" not in stepped(Pull())
    assert stepped(Pull(stops=False))["checks/pull_error"] == 0.0
    assert stepped(Sum({"pull": (1.0, Pull(most=0.0, stops=False))}))["checks/pull_error"] == 1.0
    with pytest.raises(OutOfBounds, match=r"pull/error is .*, wanted 0 to 0: nobody knows"):
        stepped(Pull(most=0.0))


def test_contrastive_metrics_are_checked() -> None:
    metrics = image_learner("fp32").step()
    assert metrics["checks/contrast_information"] in (0.0, 1.0) and metrics["checks/train_approx_kl"] == 0.0
