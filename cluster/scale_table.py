"""The table of a measurement of scaling, and the same as JSON, CSV and Markdown."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.result_table import ResultTable
from cluster.scale_folder import ScaleFolder
from cluster.scale_law import Law
from cluster.scale_measure import Figure
from cluster.scale_results import Result, Results, Trend
from cluster.whole_file import replace_text

JSON, CSV, PAGE = "scale.json", "scale.csv", "scale.md"
NONE = "-"
"""Where a run has no such number."""
TAGS = {
    "policy_age_p50": "staleness/p50",
    "policy_age_p99": "staleness/p99",
    "weight_sync_p50": "time/weight_sync_p50",
    "weight_sync_p99": "time/weight_sync_p99",
    "actors_busy": "bottleneck/actors_busy",
    "learners_busy": "bottleneck/learners_busy",
}
"""Metrics that have a column, by its name in the CSV file."""

HEADS = (
    "scaling",
    "actors",
    "learners",
    "env steps/s\ntrained",
    "generated",
    "speed-up,\nefficiency",
    "policy\nage: p50,\np99",
    "sync, ms:\np50,\np99",
    "busy:\nactors,\nlearners",
)


def table(results: Results, title: str, *, knobs: bool) -> ResultTable:
    """A row for each configuration of each series.

    Args:
        results: what was measured.
        title: over it.
        knobs: say in each row, too, what went wrong, or what to do about what limits it: a wide column.
    """
    last = "what limits it, and what to do" if knobs else "what\nlimits it"
    heads = [*HEADS, f"return at\n{results.steps:,}", last]
    cells = [[*_cells(trend, result), _limit(result, knobs=knobs)] for trend, result in rows(results)]
    return ResultTable(title, heads, cells, {0, len(heads) - 1}, tight=True)


def advice(results: Results) -> list[str]:
    """What went wrong with configurations, and what to do about each thing that limits others."""
    wrong = [f"{name} failed: {result.error}" for name, result in results.results.items() if result.error]
    limits = [result.limit for result in results.results.values() if result.limit is not None]
    return wrong + [f"{name}: {knob}" for name, knob in dict.fromkeys((limit.limit, limit.knob) for limit in limits)]


def _limit(result: Result, *, knobs: bool) -> str:
    told = [f"failed: {result.error}" if knobs else "failed"] if result.error else []
    if (limit := result.limit) is not None:
        told.append(f"{limit.limit} {limit.share:.0%}{f': {limit.knob}' if knobs else ''}")
    return "; ".join(told) or NONE


def rows(results: Results) -> Iterator[tuple[Trend, Result]]:
    """Every configuration of every series."""
    for trend in results.trends:
        for name in trend.series.points:
            yield trend, results.results[name]


def _cells(trend: Trend, result: Result) -> list[str]:
    series, point = trend.series, result.point
    kind = f"strong:\n{point.envs} in all" if series.kind == "strong" else f"weak:\n{series.envs} an actor"
    scaled = NONE
    if result.trained is not None:
        count = series.number(point)
        scaled = f"{trend.speed_up(count):.2f}x,\n{trend.efficiency(count):.0%}"
    values = {name: result.values.get(tag) for name, tag in TAGS.items()}
    first, last = (
        None if value is None else 1000 * value for value in (values["weight_sync_p50"], values["weight_sync_p99"])
    )
    return [
        *(kind, str(point.actors), str(point.learners)),
        *(_spread(result.trained), f"{result.generated.median:,.0f}" if result.generated else NONE),
        scaled,
        _pair(values["policy_age_p50"], values["policy_age_p99"], ".1f"),
        _pair(first, last, ".1f"),
        _pair(values["actors_busy"], values["learners_busy"], ".0%"),
        _spread(result.returned, ",.1f"),
    ]


def _spread(figure: Figure | None, form: str = ",.0f") -> str:
    """A median, and in brackets the least and the most."""
    if figure is None:
        return NONE
    return f"{figure.median:{form}}\n({figure.low:{form}}-{figure.high:{form}})"


def _pair(first: float | None, second: float | None, form: str) -> str:
    if first is None and second is None:
        return NONE
    return ",\n".join(NONE if value is None else format(value, form) for value in (first, second))


def laws(results: Results) -> list[str]:
    """A sentence for each series: its law, and where the knee is."""
    return [f"{trend.series.title}: {trend.said}" for trend in results.trends]


def write(scale: ScaleFolder, results: Results, title: str, facts: Mapping[str, Any]) -> None:
    """Replace `scale.json`, `scale.csv` and `scale.md`.

    Args:
        scale: where to.
        results: what.
        title: over the table.
        facts: with what and on what it was measured.
    """
    content = described(scale, results) | {"measured_with": dict(facts)}
    replace_text(scale.path / JSON, json.dumps(content, indent=1, allow_nan=False) + "\n")
    replace_text(scale.path / CSV, _csv(results))
    page = [f"# {title}", *_circumstances(facts), table(results, "Runs", knobs=True).markdown(), "## Laws"]
    replace_text(scale.path / PAGE, "\n\n".join([*page, *laws(results)]) + "\n")


def _circumstances(facts: Mapping[str, Any]) -> list[str]:
    return [", ".join(f"{name} {value}" for name, value in facts.items())] if facts else []


def described(scale: ScaleFolder, results: Results) -> dict[str, Any]:
    """All of it as JSON has it; what is infinite or missing is null."""
    return {
        "recipe": scale.recipe,
        "flags": list(scale.flags),
        "options": asdict(scale.options),
        "return_at_env_steps": results.steps,
        "configurations": {name: _result(result) for name, result in results.results.items()},
        "series": [
            asdict(trend.series)
            | {
                "title": trend.series.title,
                "along": trend.series.along,
                "speed_up": [trend.speed_up(count) for count in trend.counts],
                "efficiency": [trend.efficiency(count) for count in trend.counts],
                "counts": list(trend.counts),
                "law": _law(trend.law),
            }
            for trend in results.trends
        ],
    }


def _result(result: Result) -> dict[str, Any]:
    figures = {"trained": result.trained, "generated": result.generated, "return": result.returned}
    limit = (
        None
        if result.limit is None
        else {
            "limit": result.limit.limit,
            "share": result.limit.share,
            "knob": result.limit.knob,
            "said": str(result.limit),
        }
    )
    return {
        "actors": result.point.actors,
        "learners": result.point.learners,
        "envs": result.point.envs,
        "error": result.error,
        **{name: None if figure is None else asdict(figure) for name, figure in figures.items()},
        "repeats": [
            {"repeat": repeat + 1, "trained": each.trained, "generated": each.generated, "seconds": each.seconds}
            for repeat, each in result.repeats.items()
        ],
        "limit": limit,
        "values": dict(result.values),
    }


def _law(law: Law | None) -> dict[str, float | None] | None:
    if law is None:
        return None
    knee = law.knee if math.isfinite(law.knee) else None
    return {
        "rate": law.rate,
        "contention": law.contention,
        "coherence": law.coherence,
        "knee": knee,
        "error": law.error,
    }


def _csv(results: Results) -> str:
    """A line for each configuration of each series."""
    lines = [_line(trend, result) for trend, result in rows(results)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*lines[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(trend: Trend, result: Result) -> dict[str, Any]:
    there, count = result.trained is not None, trend.series.number(result.point)
    figures = {"trained": result.trained, "generated": result.generated, "return": result.returned}
    spreads = {
        f"{name}{suffix}": getattr(figure, part, None)
        for name, figure in figures.items()
        for suffix, part in (("", "median"), ("_low", "low"), ("_high", "high"))
    }
    return {
        "scaling": trend.series.kind,
        "along": trend.series.along,
        "actors": result.point.actors,
        "learners": result.point.learners,
        "envs": result.point.envs,
        **spreads,
        "speed_up": trend.speed_up(count) if there else None,
        "efficiency": trend.efficiency(count) if there else None,
        **{name: result.values.get(tag) for name, tag in TAGS.items()},
        "limit": result.limit.limit if result.limit else None,
        "knob": result.limit.knob if result.limit else None,
        "error": result.error,
    }


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote to `scale.json`."""
    return json.loads(path.read_text())
