"""A measurement of scaling in TensorBoard: a curve over the number of processes for each series, and the pictures."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary

from cluster.events import Events
from cluster.scale_results import Results, Trend
from cluster.scale_table import TAGS

FOLDER = "tensorboard"


def write_events(folder: Path, results: Results, page: str, pictures: Sequence[Path]) -> Path:
    """Write all of it anew.

    Args:
        folder: of the measurement.
        results: what was measured.
        page: the tables, as Markdown.
        pictures: PNG files.

    Returns:
        What TensorBoard is to be started on.
    """
    path = folder / FOLDER
    shutil.rmtree(path, ignore_errors=True)
    for trend in results.trends:
        events = Events(path / re.sub(r"[^a-z0-9]+", "-", trend.series.title))
        for count in trend.counts:
            events.scalars(count, _values(results, trend, count))
        events.close()
    events = Events(path / "ideal")
    for count in sorted({count for trend in results.trends for count in trend.counts}):
        events.scalars(count, {"scale/efficiency": 1.0})
    events.text("scale", page)
    events.summary(0, [_picture(f"scale/{picture.stem}_plot", picture) for picture in pictures])
    events.close()
    return path


def _values(results: Results, trend: Trend, count: int) -> dict[str, float]:
    """Numbers of a configuration; of the law, too, where there is one."""
    found = [results.results[name] for name in trend.series.points]
    result = next(each for each in found if each.trained is not None and trend.series.number(each.point) == count)
    figures = {"trained": result.trained, "generated": result.generated, "return": result.returned}
    values = {name: figure.median for name, figure in figures.items() if figure is not None}
    values |= {"speed_up": trend.speed_up(count), "efficiency": trend.efficiency(count)}
    values |= {name: result.values[tag] for name, tag in TAGS.items() if tag in result.values}
    if trend.law is not None:
        values["trained_by_law"] = trend.law(count)
    return {f"scale/{name}": value for name, value in values.items()}


def _picture(tag: str, path: Path) -> Summary.Value:
    content = path.read_bytes()
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=content)
    return Summary.Value(tag=tag, image=image)
