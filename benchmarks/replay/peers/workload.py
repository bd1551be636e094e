"""What every store is given: sequences of frames and CartPole transitions, made from a seed. Needs only numpy."""

from pathlib import Path

import numpy as np

WINDOW = 32
FRAME = (84, 84)
ROW = {
    "observation": ("uint8", FRAME),
    "action": ("int64", ()),
    "reward": ("float32", ()),
    "terminated": ("uint8", ()),
    "truncated": ("uint8", ()),
    "mask": ("uint8", ()),
    "episode": ("int64", ()),
    "step": ("int32", ()),
    "log_prob": ("float32", ()),
    "value": ("float32", ()),
}
"""Dtype and shape of one step's entry in each column of a sequence."""

TRANSITION = {
    "observation": ("float32", (4,)),
    "action": ("int64", ()),
    "reward": ("float32", ()),
    "next_observation": ("float32", (4,)),
    "terminated": ("uint8", ()),
    "truncated": ("uint8", ()),
}
"""Dtype and shape of one entry in each column of a CartPole transition."""


def row_bytes(columns: dict[str, tuple[str, tuple[int, ...]]]) -> int:
    """Bytes of one row, not compressed."""
    return sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in columns.values())


def sequences(rows: int, *, streams: int, seed: int, frames: str) -> dict[str, np.ndarray]:
    """Rows of several environments, stream-major: (streams, rows // streams, *shape) of each column of `ROW`.

    Args:
        rows: in all streams together.
        streams: environments.
        seed: of everything that is random.
        frames: "sprites" (drawn, mostly constant as Atari's are), "noise" (nothing to compress), or the folder of a
            recording (`benchmarks.replay.record`), of which the first rows are taken.
    """
    each = rows // streams
    if frames not in ("sprites", "noise"):
        return _recorded(Path(frames), streams, each)
    rng = np.random.default_rng(seed)
    episode, step = np.empty((streams, each), np.int64), np.empty((streams, each), np.int32)
    for stream in range(streams):
        episode[stream], step[stream] = _episodes(each, rng)
        episode[stream] += stream * each
    last = np.concatenate([step[:, 1:] == 0, np.zeros((streams, 1), bool)], axis=1)
    if frames == "noise":
        observation = rng.integers(0, 256, (streams, each, *FRAME), np.uint8)
    else:
        observation = np.stack([_drawn(step[stream], rng) for stream in range(streams)])
    return {
        "observation": observation,
        "action": rng.integers(0, 4, (streams, each)),
        "reward": (rng.random((streams, each)) < 0.05).astype(np.float32),
        "terminated": last.astype(np.uint8),
        "truncated": np.zeros((streams, each), np.uint8),
        "mask": np.ones((streams, each), np.uint8),
        "episode": episode,
        "step": step,
        "log_prob": -rng.random((streams, each), np.float32),
        "value": rng.standard_normal((streams, each), np.float32),
    }


def transitions(rows: int, *, seed: int) -> dict[str, np.ndarray]:
    """CartPole-like transitions: (rows, *shape) of each column of `TRANSITION`."""
    rng = np.random.default_rng(seed)
    observation = rng.standard_normal((rows + 1, 4), np.float32)
    return {
        "observation": observation[:-1],
        "action": rng.integers(0, 2, rows),
        "reward": np.ones(rows, np.float32),
        "next_observation": observation[1:],
        "terminated": (rng.random(rows) < 0.01).astype(np.uint8),
        "truncated": np.zeros(rows, np.uint8),
    }


def aligned_starts(data: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """(stream, row) of disjoint windows, none over the end of an episode; rows left over at an end are skipped."""
    starts = []
    for stream, step in enumerate(data["step"]):
        ends = np.append(np.flatnonzero(step[1:] == 0) + 1, len(step))
        begins = np.insert(ends[:-1], 0, 0)
        for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
            starts += [(stream, row) for row in range(begin, end - WINDOW + 1, WINDOW)]
    return starts


def blocks(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The aligned windows themselves: (items, WINDOW, *shape) of each column."""
    starts = aligned_starts(data)
    return {
        name: np.stack([column[stream, row : row + WINDOW] for stream, row in starts]) for name, column in data.items()
    }


def _recorded(folder: Path, streams: int, rows: int) -> dict[str, np.ndarray]:
    """The first rows of a recording.

    Raises:
        SystemExit: it is shorter or has fewer streams.
    """
    columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ROW}
    have = columns["step"].shape
    if have[0] < streams or have[1] < rows:
        raise SystemExit(f"{folder} holds {have[0]} streams of {have[1]} rows, wanted {streams} of {rows}")
    return {name: np.ascontiguousarray(column[:streams, :rows]) for name, column in columns.items()}


def _episodes(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Number of each row's episode, and its place in it: episodes of 100 to 400 rows."""
    lengths = rng.integers(100, 401, rows // 100 + 1)
    episode = np.repeat(np.arange(len(lengths)), lengths)[:rows]
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)[:rows]
    return episode, (np.arange(rows) - begins).astype(np.int32)


def _drawn(steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames like Breakout's: a wall that loses bricks, a ball, a paddle that jitters, a score."""
    frames = np.empty((len(steps), *FRAME), np.uint8)
    wall = np.zeros(FRAME, np.uint8)
    wall[8:10], wall[:, :4], wall[:, -4:] = 142, 142, 142
    for row in range(6):
        wall[18 + 3 * row : 21 + 3 * row, 4:80] = 60 + 20 * row
    canvas, paddle, speed = wall.copy(), 40, (1, 2)
    for index, step in enumerate(steps.tolist()):
        if step == 0:
            canvas, speed = wall.copy(), (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
        if step % 16 == 15:
            top, left = 18 + 3 * int(rng.integers(6)), 4 + 4 * int(rng.integers(19))
            canvas[top : top + 3, left : left + 4] = 0
            canvas[1:6, 30:44] = np.kron(rng.integers(0, 2, (5, 7)), np.ones((1, 2), int)) * 142
        frame = frames[index]
        frame[:] = canvas
        paddle = min(max(paddle + int(rng.integers(-3, 4)), 4), 70)
        frame[77:79, paddle : paddle + 9] = 200
        down, right = 36 + abs(step * speed[0] % 80 - 40), 5 + abs(step * speed[1] % 144 - 72)
        frame[down : down + 2, right : right + 2] = 200
    return frames
