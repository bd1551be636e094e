"""The dashboard that Grafana reads: TensorBoard's page of charts once more, on the metrics of `cluster.ray_gauges`.

`python -m cluster.grafana > ray_configs/grafana/contrail.json` writes it again.
"""

import json
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

from cluster.charts import CHARTS, Chart
from cluster.ray_gauges import PREFIX

SOURCE = {"type": "prometheus", "uid": "${source}"}
ACROSS, WIDTH, HEIGHT = 3, 8, 7
"""Panels in a row, and the size of each: a dashboard is 24 wide."""
AFTERWARDS = "eval/"
"""What begins like this comes when the run has left the cluster."""


def dashboard() -> dict[str, Any]:
    """As Grafana's JSON model; it asks for its Prometheus when it is imported."""
    return {
        "title": "Contrail",
        "uid": "contrail",
        "tags": ["contrail", "ray"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _runs()]},
        "panels": list(_panels()),
    }


def query(tags: str) -> str:
    """The PromQL of a regular expression for whole tags, of which only "/" is not what names have."""
    return f'{{__name__=~"ray_{PREFIX}{tags.replace("/", "_")}", run=~"$run"}}'.replace("\\d", "[0-9]")


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _runs() -> dict[str, Any]:
    runs = f"label_values(ray_{PREFIX}env_steps, run)"
    variable = {"name": "run", "type": "query", "datasource": SOURCE, "query": runs, "definition": runs}
    return variable | {"refresh": 2, "multi": True, "includeAll": True, "current": {"text": "All", "value": "$__all"}}


def _panels() -> Iterator[dict[str, Any]]:
    """A row for each category of charts, its panels below it; in front of all how far the runs are."""
    ids = count(1)
    yield _panel(next(ids), Chart("env steps", "env_steps"), 0, 0)
    top = HEIGHT
    for title, charts in CHARTS.items():
        drawn = [chart for chart in charts if not chart.tags.startswith(AFTERWARDS)]
        yield {"id": next(ids), "type": "row", "title": title, "collapsed": False, "panels": []} | _place(0, top, 24, 1)
        for place, chart in enumerate(drawn):
            yield _panel(next(ids), chart, place % ACROSS * WIDTH, top + 1 + place // ACROSS * HEIGHT)
        top += 1 + -(-len(drawn) // ACROSS) * HEIGHT


def _panel(number: int, chart: Chart, left: int, top: int) -> dict[str, Any]:
    # Names as they are in TensorBoard, as far as a regular expression can tell: Grafana renames by what is in common.
    target = {"refId": "A", "datasource": SOURCE, "expr": query(chart.tags), "legendFormat": "{{run}} {{__name__}}"}
    short = {"id": "renameByRegex", "options": {"regex": f"(.*) ray_{PREFIX}(.*)", "renamePattern": "$1 $2"}}
    return {
        "id": number,
        "type": "timeseries",
        "title": chart.title,
        "datasource": SOURCE,
        "targets": [target],
        "transformations": [short],
        "fieldConfig": {"defaults": {"custom": {"showPoints": "never"}}, "overrides": []},
    } | _place(left, top, WIDTH, HEIGHT)


def _place(left: int, top: int, width: int, height: int) -> dict[str, Any]:
    return {"gridPos": {"x": left, "y": top, "w": width, "h": height}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
