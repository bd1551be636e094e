"""Room: what a shard does about live segments that take more than they may."""

import errno
from collections.abc import Iterable

from replay.holding import Holding
from replay.segment import StoreFull
from replay.segments import Segments
from replay.streams import Streams


def crowded(segments: Segments, holdings: Iterable[Holding], most: int | None) -> bool:
    """Whether segments take too much, and some of it will go: archived at last, or when windows have been read."""
    leaving = segments.leaving_bytes
    if most is None or segments.live_bytes + leaving <= most:
        return False
    return leaving > 0 or any(holding.table.read_limit and holding.held for holding in holdings)


def shrink(segments: Segments, holdings: Iterable[Holding], streams: Streams, most: int) -> None:
    """Let windows leave until the live segments are small enough."""
    shrinking = [holding for holding in holdings if holding.table.removal != "wait"]
    while segments.live_bytes > most and sum(holding.shrink() for holding in shrinking):
        segments.release(streams.floors())


def check_room(taken: int, most: int, missing: str) -> None:
    """Refuse to go on when there is too little room for what a draw still waits for.

    Args:
        taken: bytes that live segments take.
        most: bytes that they may take.
        missing: what a draw waits for; "": nothing.

    Raises:
        StoreFull: it does wait, and nothing more can go.
    """
    if missing:
        text = f"live segments take {taken:,} bytes of {most:,} allowed, and a draw still waits: {missing}; "
        raise StoreFull(errno.ENOSPC, text + "lower the tables' windows or batch, or allow more")
