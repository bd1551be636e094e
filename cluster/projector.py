"""TensorBoard's projector page of a run: points to be turned around, with thumbnails and what is known of each."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.video import as_rgb
from learners.extras import needed

THUMBNAIL = 64
"""Pixels of a thumbnail's side. TensorBoard takes sprites of up to 8192 x 8192."""
CONFIG = "projector_config.pbtxt"


def write_projector(
    run: Path,
    steps: int,
    points: Mapping[str, np.ndarray],
    metadata: Mapping[str, Sequence[Any]],
    frames: Sequence[np.ndarray] = (),
) -> Path:
    """Write a page for one checkpoint into a run's `events`; those of other checkpoints stay.

    Args:
        run: the run's folder.
        steps: env steps of the checkpoint.
        points: representations by name, (m, F) each.
        metadata: what is known of the points, m values each.
        frames: their pictures, as `as_rgb` takes them; none: the points are dots.

    Returns:
        The folder that holds the page's files.
    """
    folder = run / "events" / "projector" / f"{steps:012d}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in points.items():
        np.savetxt(folder / f"{name}.tsv", values, fmt="%.5g", delimiter="\t")
    names = list(metadata)
    lines = ["\t".join(names), *("\t".join(map(_cell, row)) for row in zip(*metadata.values(), strict=True))]
    (folder / "metadata.tsv").write_text("\n".join(lines) + "\n")
    if len(frames):
        image = needed("PIL.Image", "thumbnails are made with Pillow", "video")
        image.fromarray(sprite([thumbnail(frame) for frame in frames])).save(folder / "sprite.png")
    _write_config(run / "events")
    return folder


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """A frame as a square of THUMBNAIL pixels, (THUMBNAIL, THUMBNAIL, 3); what it has beside a square is left black."""
    image = needed("PIL.Image", "thumbnails are made with Pillow", "video")
    rgb = as_rgb(frame)
    factor = THUMBNAIL / max(rgb.shape[:2])
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    how = image.Resampling.BOX if factor < 1 else image.Resampling.NEAREST
    small = np.asarray(image.fromarray(np.ascontiguousarray(rgb)).resize(size, how))
    square = np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8)
    square[: small.shape[0], : small.shape[1]] = small
    return square


def sprite(thumbnails: Sequence[np.ndarray]) -> np.ndarray:
    """All thumbnails in one square picture, row by row, as the projector wants them."""
    across = math.ceil(math.sqrt(len(thumbnails)))
    whole = np.zeros((across * THUMBNAIL, across * THUMBNAIL, 3), np.uint8)
    for index, square in enumerate(thumbnails):
        top, left = index // across * THUMBNAIL, index % across * THUMBNAIL
        whole[top : top + THUMBNAIL, left : left + THUMBNAIL] = square
    return whole


def _cell(value: Any) -> str:
    """A value as it stands in a table: without the tabs and ends of lines that would break it."""
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.6g}"
    return " ".join(str(value).split())


def _write_config(events: Path) -> None:
    """List what all checkpoints' folders hold, newest first, since the page opens with the first."""
    parts = []
    for folder in sorted((events / "projector").glob("*"), reverse=True):
        place = f"projector/{folder.name}"
        for points in sorted(path for path in folder.glob("*.tsv") if path.stem != "metadata"):
            lines = [
                f"  tensor_name: {json.dumps(f'{points.stem} at {int(folder.name):,} env steps')}",
                f"  tensor_path: {json.dumps(f'{place}/{points.name}')}",
                f"  metadata_path: {json.dumps(f'{place}/metadata.tsv')}",
            ]
            if (folder / "sprite.png").is_file():
                dims = f"single_image_dim: {THUMBNAIL} " * 2
                lines.append(f"  sprite {{ image_path: {json.dumps(f'{place}/sprite.png')} {dims}}}")
            parts.append("embeddings {\n" + "\n".join(lines) + "\n}")
    (events / CONFIG).write_text("\n".join(parts) + "\n")
