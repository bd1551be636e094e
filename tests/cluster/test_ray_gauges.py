"""A run's numbers among Ray's metrics, and the dashboard that asks for them."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from cluster import ray_gauges
from cluster.charts import CHARTS
from cluster.grafana import dashboard
from cluster.metrics import read_metrics
from cluster.ray_gauges import RayGauges, gauge_name
from tests.cluster.commands import HOUSE, Contrail

SHIPPED = HOUSE / "ray_configs" / "grafana" / "contrail.json"


class FakeGauge:
    """As Ray's, in this process alone."""

    now: dict[str, tuple[float, dict[str, str]]]

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        assert re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", name) and description and tag_keys == ("run",)
        assert name not in self.now, "made twice"
        self.name = name

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.now[self.name] = value, tags


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, dict[str, str]]]:
    """What there is to see of all gauges."""
    monkeypatch.setattr(FakeGauge, "now", {}, raising=False)
    monkeypatch.setattr("ray.util.metrics.Gauge", FakeGauge)
    monkeypatch.setattr(ray_gauges, "EVERY", 0.0)
    return FakeGauge.now


def test_an_evaluation_of_earlier_weights_does_not_take_the_run_back(exported: dict, monkeypatch) -> None:
    gauges = RayGauges("run")
    monkeypatch.setattr(ray_gauges, "EVERY", 1000.0)
    gauges._last = 0.0 - 1000.0
    gauges.scalars(500, {"train/value_loss": 2.0})
    gauges.scalars(400, {"eval/mean_reward": 3.0})
    values = {name: value for name, (value, _) in exported.items()}
    assert values[gauge_name("env_steps")] == 500 and values[gauge_name("eval/mean_reward")] == 3.0


def queries(model: dict[str, Any]) -> dict[str, str]:
    """The expression of every panel by "row: title"."""
    row, found = "", {}
    for panel in model["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        for target in panel.get("targets", []):
            found[f"{row}: {panel['title']}"] = target["expr"]
    return found


def asked_for(query: str, names: set[str]) -> set[str]:
    """The metrics that a query finds, as Prometheus would: it looks for whole names."""
    expression = re.fullmatch(r'\{__name__=~"(.+)", run=~"\$run"\}', query)
    assert expression is not None, query
    return {name for name in names if re.fullmatch(expression[1], name)}


def test_gauges_are_what_the_charts_show_under_the_name_of_the_run(exported: dict) -> None:
    gauges = RayGauges("mine")
    values = {
        "train/value_loss": 0.5,
        "replay/a-table/drawn": 8.0,
        "train/version": 7.0,
        "contrast/loss_12": 2.0,
    }
    gauges.scalars(100, values)
    gauges.scalars(200, values | {"train/value_loss": 0.25})
    assert exported == {
        "contrail_env_steps": (200.0, {"run": "mine"}),
        "contrail_train_value_loss": (0.25, {"run": "mine"}),
        "contrail_replay_a_table_drawn": (8.0, {"run": "mine"}),
        "contrail_contrast_loss_12": (2.0, {"run": "mine"}),
    }


def test_moments_that_ray_would_not_send_on_are_left_out(exported: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_gauges, "EVERY", 3600.0)
    gauges = RayGauges("mine")
    for step in (100, 200):
        gauges.scalars(step, {})
    assert exported == {"contrail_env_steps": (100.0, {"run": "mine"})}


def test_the_shipped_dashboard_has_tensorboards_charts_in_its_order() -> None:
    shipped = json.loads(SHIPPED.read_text())
    assert shipped == dashboard(), "write it again: python -m cluster.grafana > ray_configs/grafana/contrail.json"
    charts = [f"{row}: {c.title}" for row, all_ in CHARTS.items() for c in all_ if not c.tags.startswith("eval/")]
    assert list(queries(shipped)) == [": env steps", *charts]
    places = [tuple(panel["gridPos"].values()) for panel in shipped["panels"]]
    assert len(set(places)) == len(places) and all(x + w <= 24 for x, _, w, _ in places)
    assert len({panel["id"] for panel in shipped["panels"]}) == len(places)


def test_every_query_finds_metrics_of_a_run(contrail: Contrail, exported: dict) -> None:
    assert contrail.train("ppo", "--steps", 300).code == 0
    small = ("--env", "actors.envs:StaticRecall-v0", "--steps", 64)
    assert contrail.train("cpc_ppo", *small, name="joint").code == 0
    store = contrail.runs / "run"
    clone = ("clone", "--topology.local", "--store", store, "--steps", 64, "--batch", 64)
    assert contrail("train", *clone, "--run.folder", contrail.runs, "--run.name", "clone").code == 0
    gauges = RayGauges("all of them")
    for name in ("run", "joint", "clone"):
        for row in read_metrics(contrail.runs / name):
            gauges.scalars(int(row["step"]), {tag: v for tag, v in row.items() if tag not in ("step", "time")})
    gauges.scalars(1, {"health/deaths": 0.0, "health/actors": 2.0, "bottleneck/queue": 1.0})  # over several processes
    names = {f"ray_{name}" for name in exported}
    found = {title: asked_for(query, names) for title, query in queries(json.loads(SHIPPED.read_text())).items()}
    assert [title for title, metrics in found.items() if not metrics] == []
    drawn = set().union(*found.values())
    assert names - drawn == {name for name in names if name.startswith(f"ray_{gauge_name('eval/')}")}


def test_a_run_in_one_process_exports_nothing(contrail: Contrail, exported: dict) -> None:
    assert contrail.train("ppo", "--steps", 64, "--topology.address", "auto").code == 0
    assert not exported


def test_the_dashboard_can_be_written_again() -> None:
    done = subprocess.run([sys.executable, "-m", "cluster.grafana"], cwd=HOUSE, capture_output=True, check=True)
    assert done.stdout == SHIPPED.read_bytes()
