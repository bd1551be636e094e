"""Pictures of a measurement of scaling: speed and efficiency beside the ideal line, and where time goes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.actor import STAGES as ACTOR
from cluster.scale_plan import counted
from cluster.scale_results import Result, Results, Trend
from learners.extras import needed
from learners.learner import STAGES as LEARNER

EFFICIENCY, STAGES = "efficiency.png", "stages.png"
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e")
WAITING = {"wait": "#d9d9d9", "room": "#bdbdbd", "between": "#969696"}
"""Stages in which nothing is done are grey."""
DONE = {
    "inference": "#4269d0",
    "environment": "#3ca951",
    "write": "#efb118",
    "gather": "#efb118",
    "copy": "#a463f2",
    "update": "#4269d0",
    "reduce": "#ff725c",
    "publish": "#3ca951",
}


def drawn(results: Results, title: str, folder: Path) -> list[Path]:
    """Draw both; nothing where nothing was measured.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    needed("matplotlib", "plots are drawn by matplotlib", "scale")
    measured = [result for result in results.results.values() if result.repeats]
    if not measured:
        return []
    _draw_efficiency([trend for trend in results.trends if trend.counts], title, folder / EFFICIENCY)
    _draw_stages(measured, title, folder / STAGES)
    return [folder / EFFICIENCY, folder / STAGES]


def _canvas(width: float, height: float, rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(width, height), layout="constrained")
    axes = canvas.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return canvas, axes


def _draw_efficiency(trends: Sequence[Trend], title: str, path: Path) -> None:
    """Speed on the left with the ideal line and the law of every series, efficiency on the right."""
    canvas, (speeds, shares) = _canvas(11.0, 4.8 + 0.1 * len(trends), 1, 2)
    along = trends[0].series.along
    for trend, colour in zip(trends, COLOURS * len(trends), strict=False):
        _draw_speeds(speeds, trend, colour)
        first, counts = trend.speeds[0].median / trend.counts[0], np.asarray(trend.counts)
        values = np.array([[figure.median, figure.low, figure.high] for figure in trend.speeds]).T / (first * counts)
        shares.errorbar(counts, values[0], _whiskers(values), color=colour, marker="o", capsize=3)
    shares.axhline(1, color="black", linestyle="--", linewidth=1)
    ticks = sorted({count for trend in trends for count in trend.counts})
    for axis in (speeds, shares):
        axis.set_xlabel(f"number of {along}")
        axis.set_xticks(ticks)
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", color="#e5e5e5")
        axis.set_axisbelow(True)
    speeds.set_title("env steps a second, trained", loc="left", fontsize=10)
    shares.set_title("efficiency", loc="left", fontsize=10)
    shares.yaxis.set_major_formatter("{x:.0%}")
    speeds.yaxis.set_major_formatter("{x:,.0f}")
    canvas.suptitle(title, fontsize=11)
    _legend(canvas, trends)
    canvas.savefig(path, dpi=130)


def _whiskers(values: np.ndarray) -> np.ndarray:
    """What error bars want of (median, least, most): distances from the median."""
    return np.stack([values[0] - values[1], values[2] - values[0]])


def _draw_speeds(axes: Any, trend: Trend, colour: str) -> None:
    """Points with the spread of their repeats, the ideal line through the first, and the law with its knee."""
    counts = np.asarray(trend.counts)
    values = np.array([[figure.median, figure.low, figure.high] for figure in trend.speeds]).T
    axes.errorbar(
        *(counts, values[0], _whiskers(values)),
        color=colour,
        marker="o",
        capsize=3,
        linestyle="none" if trend.law else "-",
    )
    axes.plot(counts, values[0][0] * counts / counts[0], color=colour, linestyle="--", linewidth=1)
    if (law := trend.law) is not None:
        fine = np.linspace(counts[0], counts[-1], 200)
        axes.plot(fine, [law(float(count)) for count in fine], color=colour)
        if counts[0] <= law.knee <= counts[-1]:
            axes.plot(law.knee, law(law.knee), color=colour, marker="v", markersize=10)


def _legend(canvas: Any, trends: Sequence[Trend]) -> None:
    """The series by colour, and once what lines and marks mean."""
    from matplotlib.lines import Line2D

    entries = [Line2D([], [], color=colour, marker="o") for _, colour in zip(trends, COLOURS, strict=False)]
    labels = [trend.series.title for trend in trends[: len(COLOURS)]]
    entries.append(Line2D([], [], color="black", linestyle="--", linewidth=1))
    labels.append("ideal: as fast as the first, times the number")
    if any(trend.law for trend in trends):
        entries += [Line2D([], [], color="grey"), Line2D([], [], color="grey", marker="v", linestyle="none")]
        labels += ["scalability law, on the left", "its knee"]
    canvas.legend(entries, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)


def _draw_stages(results: Sequence[Result], title: str, path: Path) -> None:
    """Shares of the time of an actor's block and of a learner step, above them the whole time."""
    canvas, axes = _canvas(max(7.0, 2.5 + 0.9 * len(results)), 7.5, 2, 1)
    names = [
        "\n".join([counted(point.actors, "actor"), counted(point.envs, "env"), counted(point.learners, "learner")])
        for point in (result.point for result in results)
    ]
    for axis, who, stages in zip(axes, ("actor", "learner"), (ACTOR, LEARNER), strict=True):
        _draw_shares(axis, [_seconds(result.values, who, stages) for result in results])
        axis.set_xticks(range(len(results)), names, fontsize=8)
        axis.yaxis.set_major_formatter("{x:.0%}")
        whole = "a block of the mean actor" if who == "actor" else "a learner step"
        axis.set_title(f"{whole}: where its time goes", loc="left", fontsize=10, pad=18)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, reverse=True)
    canvas.suptitle(title, fontsize=11)
    canvas.savefig(path, dpi=130)


def _seconds(values: Mapping[str, float], who: str, stages: Sequence[str]) -> dict[str, float]:
    return {stage: values.get(f"time/{who}_{stage}", 0.0) for stage in stages}


def _draw_shares(axes: Any, bars: Sequence[Mapping[str, float]]) -> None:
    whole = np.array([sum(bar.values()) for bar in bars])
    below = np.zeros(len(bars))
    for stage in sorted(bars[0], key=lambda stage: stage in WAITING):
        share = np.array([bar[stage] for bar in bars]) / np.maximum(whole, 1e-12)
        if share.any():
            axes.bar(
                range(len(bars)),
                share,
                0.7,
                below,
                color=(DONE | WAITING)[stage],
                label=stage,
                edgecolor="white",
                linewidth=0.5,
            )
            below += share
    for place, seconds in enumerate(whole):
        axes.text(place, 1.02, f"{seconds:.3g} s", ha="center", va="bottom", fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.6, len(bars) - 0.4)
