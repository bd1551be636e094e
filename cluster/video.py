"""Films of frames: GIF by Pillow, MP4 by imageio-ffmpeg, both of the extra `video`."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from cluster.experiment import ExperimentError
from learners.extras import needed

SUFFIXES = (".gif", ".mp4")
SMALLEST = 240
"""Pixels below which the longer side of a frame is enlarged, by a whole factor."""


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write a film as frames come in; how many there were.

    Args:
        path: ends in .gif or .mp4; appears when it is complete.
        frames: (H, W), (H, W, C) or (C, H, W) uint8, all of one size, at least one.
        fps: frames a second. A GIF counts in hundredths of a second.

    Raises:
        ExperimentError: the file cannot be written.
        MissingExtra: what writes this kind is not installed.
    """
    count = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for frame in frames:
            count += 1
            yield enlarged(as_rgb(frame))

    write = {".gif": _write_gif, ".mp4": _write_mp4}[path.suffix]
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial, counted(), fps)
        os.replace(partial, path)
    except OSError as error:
        raise ExperimentError(f"{path} cannot be written ({error})") from error
    finally:
        with suppress(OSError):  # where the folder is none; the reason has been told
            partial.unlink(missing_ok=True)
    return count


def as_rgb(frame: np.ndarray) -> np.ndarray:
    """A frame as (H, W, 3): three channels are colours, a fourth is dropped; of other planes the last, in grey."""
    if frame.ndim == 2:
        frame = frame[..., None]
    if frame.shape[-1] > 4:
        frame = np.moveaxis(frame, 0, -1)
    return frame[..., :3] if frame.shape[-1] in (3, 4) else np.repeat(frame[..., -1:], 3, -1)


def enlarged(frame: np.ndarray) -> np.ndarray:
    """A small frame with each pixel as a square, and sides that are even, as films want them."""
    factor = max(1, -(-SMALLEST // max(frame.shape[:2])))
    big = frame.repeat(factor, 0).repeat(factor, 1)
    return np.pad(big, [(0, big.shape[0] % 2), (0, big.shape[1] % 2), (0, 0)], mode="edge")


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    image = needed("PIL.Image", "a GIF is written with Pillow", "video")
    pictures = (image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    milliseconds = max(20, round(1000 / fps))  # browsers slow down what is faster
    next(pictures).save(
        path, format="GIF", save_all=True, append_images=pictures, duration=milliseconds, loop=0, optimize=False
    )


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    ffmpeg = needed("imageio_ffmpeg", "an MP4 is written with imageio-ffmpeg", "video")
    try:
        ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise ExperimentError(f"an MP4 is written by ffmpeg ({error}): install it, or write a .gif") from error
    first = next(frames)
    height, width = first.shape[:2]
    # Quality 8 of 10; blocks of 1, since our sides are even: the default would stretch frames to multiples of 16.
    writer = ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        quality=8,
        macro_block_size=1,
        ffmpeg_log_level="error",
        output_params=["-f", "mp4"],
    )
    writer.send(None)
    try:
        for frame in chain([first], frames):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
