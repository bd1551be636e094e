"""The page of TensorBoard's Custom Scalars that comes with every run: what to look at first, question by question."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Layout, MultilineChartContent
from tensorboard.plugins.custom_scalar.layout_pb2 import Chart as ChartProto

TAG, PLUGIN = "custom_scalars__config__", "custom_scalars"


@dataclass(frozen=True)
class Chart:
    """Curves in one chart.

    Attributes:
        title: over it.
        tags: a regular expression for whole tags. It does not depend on the run: TensorBoard draws a chart once that
            several runs have, if it is the same.
        early: whether its tags come with the first learner step; the others may come later.
    """

    title: str
    tags: str
    early: bool = True

    def shown(self, tags: Iterable[str]) -> bool:
        """Whether a run whose first learner step gave these tags can have it."""
        return not self.early or any(re.fullmatch(self.tags, tag) for tag in tags)


CHARTS = {
    "Learning": (
        Chart("return of the last 100 episodes", "rollout/ep_rew_mean", early=False),
        Chart("length of the last 100 episodes", "rollout/ep_len_mean", early=False),
        Chart("return, greedy", "eval/mean_reward", early=False),
        Chart("policy loss", "train/policy_gradient_loss"),
        Chart("value loss", "train/value_loss"),
        Chart("explained variance of the value", "train/explained_variance"),
        Chart("entropy loss", "(train|clone)/entropy_loss"),
        Chart("KL from the policy that acted", "train/(approx_kl|kl)"),
        Chart("clipped fraction", "train/clip_fraction"),
        Chart("gradient norm before clipping", "train/gradient_norm"),
        Chart("learning rate", "train/learning_rate"),
        Chart("imitation", "clone/(loss|accuracy|error)"),
    ),
    "Contrastive": (
        Chart("loss", r"contrast/loss(_\d+)?"),
        Chart("accuracy", r"contrast/accuracy(_\d+)?"),
        Chart("information, nats", r"contrast/information(_\d+)?"),
        Chart("similarity of positives and negatives", "contrast/(positive|negative)_similarity"),
        Chart("spread of the embedding", "contrast/embedding_std"),
        Chart("effective rank of the embedding", "contrast/effective_rank"),
    ),
    "Staleness": (
        Chart("versions behind", "staleness/(mean|max|p50|p99)"),
        Chart("ratio before the first step, away from 1", "train/first_ratio_error"),
    ),
    "Throughput": (
        Chart("env steps a second", "time/fps", early=False),
        Chart("learner, seconds a step", "time/learner_(wait|gather|copy|update|reduce|publish|between)"),
        Chart("actors, seconds a block", "time/actor_(wait|room|inference|environment|write|between)"),
        Chart("weights, seconds to the actors", "time/weight_sync_p(50|99)", early=False),
        Chart("busy, share of wall time", "bottleneck/.+_busy", early=False),
        Chart("draws ahead of the learners", "bottleneck/queue"),
        Chart("windows drawn and evicted", "replay/.+/(drawn|evicted)"),
    ),
    "Health": (
        Chart("checks, 1 is a warning", "checks/.+"),
        Chart("processes that died", "health/deaths"),
        Chart("actors", "health/actors"),
        Chart("rows dropped", "replay/(.+/)?rows_dropped"),
        Chart("segments waiting for the archive", "replay/segments_archiving"),
        Chart("live bytes", "replay/bytes"),
        Chart("commits that came twice or too late", "replay/commits_(repeated|stale)"),
        Chart("minibatches done, below 1 where max_kl stopped them", "train/minibatches_done"),
    ),
}
"""By category, in the order of the page."""


def layout(tags: Iterable[str]) -> Summary.Value | None:
    """The page as a summary, with the charts that a run can have; None: only such as may come later.

    Args:
        tags: of the run's first learner step.
    """
    known = list(tags)
    if not any(chart.early and chart.shown(known) for charts in CHARTS.values() for chart in charts):
        return None
    pages = {title: [chart for chart in charts if chart.shown(known)] for title, charts in CHARTS.items()}
    content = Layout(category=[_category(title, charts) for title, charts in pages.items() if charts])
    return Summary.Value(
        tag=TAG,
        metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN)),
        tensor=TensorProto(dtype=DT_STRING, string_val=[content.SerializeToString()], tensor_shape=TensorShapeProto()),
    )


def _category(title: str, charts: Iterable[Chart]) -> Category:
    # TensorBoard asks whether a tag begins like this.
    drawn = [ChartProto(title=c.title, multiline=MultilineChartContent(tag=[f"({c.tags})$"])) for c in charts]
    return Category(title=title, chart=drawn)
