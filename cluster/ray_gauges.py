"""A run's numbers among the metrics of the Ray cluster that it joined, where Prometheus finds them."""

import re
import time
from collections.abc import Mapping
from typing import Any

from cluster.charts import CHARTS

PREFIX = "contrail_"
"""Of all names; Ray puts its own in front of it."""
EVERY = 1.0
"""Seconds between two moments that are handed on: Ray sends them on less often than that."""

SHOWN = re.compile("|".join(f"(?:{chart.tags})" for charts in CHARTS.values() for chart in charts))


class RayGauges:
    """Gauges with the run's name as the tag `run`: `contrail_env_steps`, and one for every tag that a chart shows.

    All are gauges: a resumed run goes back to its checkpoint, and a counter could not. They vanish from the exporter
    some time after the driver has left the cluster. Values of the evaluation at the end come after that; those of
    others leave `env_steps` as it is.

    Args:
        run: its name.
    """

    def __init__(self, run: str) -> None:
        self._tags = {"run": run}
        self._gauges: dict[str, Any] = {}
        self._last = -EVERY

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on numbers of one moment, unless another one was just now; Ray must have been joined."""
        now = time.monotonic()
        if not any(tag.startswith("eval/") for tag in values):  # else of weights that the run has left behind
            if now - self._last < EVERY:
                return
            self._last = now
            self._set(f"{PREFIX}env_steps", "env steps of the run so far", float(step))
        for tag, value in values.items():
            if SHOWN.fullmatch(tag):
                self._set(gauge_name(tag), f"{tag} of a run", value)

    def close(self) -> None:
        """Nothing to do: Ray lets go of them with the driver."""

    def _set(self, name: str, what: str, value: float) -> None:
        if name not in self._gauges:
            from ray.util.metrics import Gauge  # a run without a cluster does without Ray

            self._gauges[name] = Gauge(name, what, tag_keys=("run",))
        self._gauges[name].set(value, self._tags)


def gauge_name(tag: str) -> str:
    """The name of a tag's gauge, in characters that Prometheus takes: "contrail_train_value_loss"."""
    return PREFIX + re.sub(r"\W", "_", tag, flags=re.ASCII)
